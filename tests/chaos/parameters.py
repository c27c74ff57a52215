"""Parameters drawn by hypothesis from the pydantic models themselves: valid ones train, others are refused."""

import math
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import annotated_types
import hypothesis
import torch
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from components import params, tasks
from components.contracts import Plan, Task
from components.errors import PedigreeError
from components.params import TaskParams
from components.training.device import autocast, precision_on
from components.training.optimization import build_average, build_optimizers, learning_rate
from tests.chaos.results import Result
from tests.conftest import ROOT, TASKS, tiny

TINY = {
    "size": 40, "width": 0.25, "seconds": 0.4, "mels": 32, "window": 64, "hidden": 40, "embedding": 40, "layers": 3,
    "vocabulary": 400, "batch_size": 64,
}  # fmt: skip
"""The most that fields of these names get, so that a network is made in a moment."""
PATTERNS = ("(?P<speaker>.+)_", "^(?P<speaker>s[0-9]+)", "(?P<speaker>)", "(?P<speaker>.*?)$")
"""For text that has to be a regular expression with this group; other text is free."""
FREE = 64
"""From the least value of a field that has no most value to the most that it gets here; of floats, 1e300 more."""
CPU = torch.device("cpu")

Path_ = tuple[str, ...]


class Spoilt(NamedTuple):
    """A section in which some values are wrong."""

    tree: dict[str, Any]
    wrong: tuple[Path_, ...]


def valid(model: type[BaseModel], usual: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a section as a mapping: of each value either the usual one, or any within the field's own bounds."""
    fields = {}
    for name, field in model.model_fields.items():
        key, kind = field.alias or name, field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields[key] = valid(kind, usual[key])
        else:
            drawn = _of(name, kind, field.metadata)
            fields[key] = st.one_of(st.just(usual[key]), st.just(usual[key]), drawn)
    return st.fixed_dictionaries(fields).map(_divisible)


def _divisible(section: dict[str, Any]) -> dict[str, Any]:
    """Make the batch one that can be divided, three times out of four: by chance it hardly ever could."""
    if "accumulate" in section and section["seed"] % 4 != 3:
        pieces = max(section["workers"], 1) * section["accumulate"]
        section["batch_size"] = max(2, section["batch_size"] // pieces) * min(pieces, 500_000)
    return section


@cache
def usual(name: str) -> dict[str, Any]:
    """Return a task's section of params.yaml, with what makes it quick laid over it."""
    settings = params.Values({"tasks": {name: tiny(name).SETTINGS}}, {})
    return dict(settings.over(params.read(ROOT / params.FILE)).tree["tasks"][name])


def _of(name: str, kind: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    if get_origin(kind) is Annotated:
        inner = [each for extra in kind.__metadata__ for each in getattr(extra, "metadata", [extra])]
        return _of(name, kind.__origin__, [*metadata, *inner])
    if get_origin(kind) in (Union, UnionType):
        return st.one_of(*(_of(name, each, metadata) for each in get_args(kind)))
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is dict:
        return st.dictionaries(
            st.text("abc", min_size=1, max_size=3), st.floats(allow_nan=False, allow_infinity=False)
        )
    if kind is NoneType:
        return st.none()
    if kind is bool:
        return st.booleans()
    if kind is int:
        low, high = bounds(name, metadata, int)
        return st.integers(int(low), int(high))
    if kind is float:
        low, high = bounds(name, metadata, float)
        middle = st.floats(max(low, -10), min(high, 10))  # what people would write, half of the time
        return middle | st.floats(low, high)
    assert kind is str, f"{name} is a {kind}: say how it is drawn"
    return _text(name, metadata)


def _text(name: str, metadata: list[Any]) -> st.SearchStrategy[str]:
    pattern = next((p for each in metadata if (p := getattr(each, "pattern", None))), None)
    if pattern:
        return st.from_regex(pattern, fullmatch=True)
    return st.sampled_from(PATTERNS) if name == "speaker" else st.sampled_from(("loss", "accuracy", "perplexity"))


def bounds(name: str, metadata: list[Any], kind: type) -> tuple[float, float]:
    """Return the least and the most value of a field, the most no more than what keeps a network tiny."""
    low, high = -math.inf, math.inf
    for each in metadata:
        match each:
            case annotated_types.Ge(ge=ge):
                low = ge
            case annotated_types.Gt(gt=gt):
                low = gt + 1 if kind is int else math.nextafter(gt, math.inf)
            case annotated_types.Le(le=le):
                high = le
            case annotated_types.Lt(lt=lt):
                high = lt - 1 if kind is int else math.nextafter(lt, -math.inf)
    if kind is float:
        low, high = max(low, -1e300), min(high, 1e300)
    else:
        low = low if math.isfinite(low) else 0
        high = high if math.isfinite(high) else low + FREE
    return low, max(low, min(high, TINY.get(name, high)))


@st.composite
def spoilt(draw: st.DrawFn, model: type[BaseModel], usual: Mapping[str, Any]) -> Spoilt:
    """Return a section in which one to three values are wrong: out of bounds, of another type, missing, unknown."""
    tree = draw(valid(model, usual))
    places = sorted(leaves(model))
    chosen = draw(st.lists(st.sampled_from(places), min_size=1, max_size=3, unique=True))
    for path in chosen:
        _put(tree, path, draw(st.sampled_from(_wrong(model, path))))
    if draw(st.booleans()):
        section = draw(st.sampled_from(sorted({path[:-1] for path in places})))
        chosen.append((*section, "colour"))
        _put(tree, chosen[-1], "blue")
    return Spoilt(tree, tuple(chosen))


MISSING = object()


def choices(field: FieldInfo) -> tuple[Any, ...]:
    """Return what a field can be, where that is a list of values."""
    kinds = (field.annotation, *get_args(field.annotation))
    return tuple(each for kind in kinds if get_origin(kind) is Literal for each in get_args(kind))


def leaves(model: type[BaseModel]) -> dict[Path_, FieldInfo]:
    """Return the fields of a section and of the sections in it, by their paths."""
    found: dict[Path_, FieldInfo] = {}
    for name, field in model.model_fields.items():
        key, kind = field.alias or name, field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= {(key, *path): leaf for path, leaf in leaves(kind).items()}
        else:
            found[(key,)] = field
    return found


def _wrong(model: type[BaseModel], path: Path_) -> list[Any]:
    field = leaves(model)[path]
    kinds = {each for each in (field.annotation, *get_args(field.annotation)) if isinstance(each, type)}
    wrong: list[Any] = [MISSING, [1, 2], {"a": {}}, math.nan, "a word that is wrong, surely (", math.inf, b"\xff"]
    if field.annotation is str:
        wrong = [MISSING, [1], {}, None, 3.5] + (["no group", "("] if path[-1] == "speaker" else [])
    if kinds & {int, float} and field.annotation != dict[str, float]:
        wrong += [-1e9, 1e9 + 0.5] if field.metadata else []
    if NoneType not in kinds:
        wrong.append(None)
    high = [each for each in field.metadata if isinstance(each, annotated_types.Le | annotated_types.Lt)]
    if not high and float in kinds:
        wrong = [each for each in wrong if each != 1e9 + 0.5]
    return wrong


def _put(tree: dict[str, Any], path: Path_, value: Any) -> None:
    for key in path[:-1]:
        tree = tree[key]
    if value is MISSING:
        del tree[path[-1]]
    else:
        tree[path[-1]] = value


def check_valid(task: Task[Any], tree: dict[str, Any]) -> str:
    """Validate, prepare, build and take a step; return `step`, or the sentence by which it was refused.

    Raises:
        AssertionError: the sentence names neither a field nor the data.
        Exception: whatever is no sentence: a defect.
    """
    root = ("tasks", task.name)
    try:
        values = params.validate(task.params, params.Values({"tasks": {task.name: tree}}, {}), root)
        with tempfile.TemporaryDirectory() as folder:
            one_step(task, values, Path(folder))
    except PedigreeError as reason:
        said = str(reason)
    else:
        return "step"
    assert any(path[-1] in said for path in leaves(task.params)) or str(raw_of(task.name)) in said, said
    return said


def check_spoilt(task: Task[Any], spoilt: Spoilt) -> None:
    """Validate, and see that each wrong field is named."""
    root = ("tasks", task.name)
    try:
        params.validate(task.params, params.Values({"tasks": {task.name: spoilt.tree}}, {}), root)
    except PedigreeError as reason:
        told = str(reason)
    else:
        raise AssertionError(f"not refused: {_shown(spoilt)}")
    silent = [path for path in spoilt.wrong if ".".join((*root, *path)) not in told]
    assert not silent, f"{silent} are not named in: {told}"


def _shown(spoilt: Spoilt) -> str:
    flat = params.flat(spoilt.tree)
    return ", ".join(f"{'.'.join(path)} = {flat.get('.'.join(path), 'missing')!r}" for path in spoilt.wrong)


def one_step(task: Task[Any], values: TaskParams, folder: Path) -> None:
    """Prepare the task's tiny data, build the network, and make one update from a batch, as the loop does."""
    train = values.train
    manifest = task.prepare(raw_of(task.name), folder, values)
    torch.manual_seed(train.seed)
    model = task.build_model(values, manifest)
    split = task.load_split(folder, "train")
    task.initialise(model, values, split)
    optimizers, average = build_optimizers(model, train.optimizer), build_average(model, train.average)
    batch = task.train_batches(split, values, Plan())[0]
    model.train()
    with autocast(CPU, precision_on(CPU, train.precision)):
        output = task.step(model, task.augment(batch, values), values)
    output.loss.backward()
    assert output.loss.isfinite(), f"a loss of {output.loss.item()} at the first step"
    if train.clip_norm:
        torch.nn.utils.clip_grad_norm_(model.parameters(), train.clip_norm)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(train, 0.5) * output.rate
        optimizer.step()
    if average is not None:
        average.update_parameters(model)


@cache
def raw_of(name: str) -> Path:
    """Return a folder with a task's tiny data, made once a process."""
    folder = Path(tempfile.mkdtemp(prefix="pedigree-chaos-"))
    tiny(name).write(folder)
    return folder


def blow_parameters(times: int, seed: int) -> Result:
    """Draw so many sets of parameters, half of them valid, for all tasks in turn."""
    found: Counter[str] = Counter()
    failures: list[str] = []
    told: Counter[str] = Counter()
    share = -(-times // (2 * len(TASKS)))
    for name in TASKS:
        task = tasks.load(name)

        def take(tree: dict[str, Any], task: Task[Any] = task) -> None:
            said = check_valid(task, tree)
            found["took a step" if said == "step" else "were refused, as a whole or by the data"] += 1
            if said != "step":
                told[_kind(said)] += 1

        def refuse(tree: Spoilt, task: Task[Any] = task) -> None:
            check_spoilt(task, tree)
            found["had wrong values, each named"] += 1

        for strategy, check in (
            (valid(task.params, usual(name)), take),
            (spoilt(task.params, usual(name)), refuse),
        ):
            failures += draw(strategy, check, share, seed)
            print(f"  {name}: {dict(found)}, {len(failures)} failures", flush=True)
    for reason, count in told.most_common():
        print(f"  {count} {reason}", flush=True)
    for name in TASKS:
        shutil.rmtree(raw_of(name))
    raw_of.cache_clear()
    sentences = "; ".join(f"{count:,} {what}" for what, count in found.items())
    return Result(found.total() + len(failures), sentences, failures)


def _kind(reason: str) -> str:
    return "".join("N" if letter.isdigit() else letter for letter in reason.replace("\n", " "))[:110]


def draw(strategy: st.SearchStrategy[Any], check: Callable[[Any], None], times: int, seed: int) -> list[str]:
    """Call `check` with so many values; return what was raised, for all of them and not for the first alone."""
    failures: list[str] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=times,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(strategy)
    def each(value: Any) -> None:
        try:
            check(value)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            failures.append(f"{type(error).__name__} in {where}: {str(error)[:300]} of {_brief(value)}")

    each()
    return failures


def _brief(value: Any) -> str:
    if isinstance(value, Spoilt):
        return _shown(value)
    return str(value if not isinstance(value, Mapping) else {key: value[key] for key in ("prepare", "train")})
