"""Every task trains, validates, predicts and resumes on a GPU, and no update waits for it; without a GPU.

A process of its own trains on a stand-in (`stand_in.py`): tensors that are on cuda:0 for torch and for the product,
and whose numbers the CPU computes. `trainings.py` says what it does with a task. Real are

- the loop, evaluation, checkpoints and files, and all numbers in them: a stopped training must end with the weights
  of one that was not, and the predictions must be the CPU's;
- torch's dispatch, autocast to bf16 and optimizers, and on which device each tensor is;
- what is asked of the GPU: each copy and whether its memory is pinned, each number that is read, each result whose
  size depends on numbers. A copy to the CPU that does not block holds nonsense until one waits for it.

Substituted are

- the kernels, by the CPU's. What a GPU rounds otherwise, its speed and its memory are not tested. Random numbers
  are those of the CPU's generator.
- autograd, by the CPU's on the same operations. What a backward pass waits for is not found, and a
  torch.autograd.Function is refused.
- cuDNN: convolutions and norms are torch's own operations, an LSTM or GRU is the CPU's. That cuDNN computes these
  in fp16 under autocast is imitated, and found. Not imitated: that their weights share a piece of memory, for which
  see tests/training/test_model_files.py, and that dropout between the layers of one LSTM waits after each new seed.
- streams, of which there is one. NCCL, several workers and CUDA graphs (`train.compile`) are not tested.
- the measurement of the device's peak, which would take the CPU a minute.
"""

import json
from collections.abc import Collection
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components import params
from tests.conftest import MODELS, ROOT, shrink, tiny
from tests.running import python
from tests.toy.values import NAMES

VARIANTS = {
    f"{name}-{variant}": (name, over)
    for name in MODELS
    for variant, over in getattr(tiny(name), "VARIANTS", {"plain": {}}).items()
}
"""What is trained, by name: the model, and what is laid over its parameters."""
FIRST = {name: next(each for each, (base, _) in VARIANTS.items() if base == name) for name in MODELS}
"""The variant of each model that need not wait for `make test-long`."""


def write_project(folder: Path, chosen: Collection[str]) -> None:
    """Write tiny data of each task's model, and the parameters of the chosen variants."""
    shrink(folder / params.FILE)
    models = params.read(folder / params.FILE).tree["models"]
    variants = {
        name: params.Values(over, {}).over(params.Values(models[base], {})).tree
        for name, (base, over) in VARIANTS.items()
        if name in chosen
    }
    with (folder / params.FILE).open("w") as file:
        YAML(typ="safe").dump({"models": variants}, file)
    for name in MODELS:
        (folder / "data" / name).mkdir(parents=True)
        tiny(name).write(folder / "data" / name)


def trained(folder: Path, chosen: Collection[str]) -> dict[str, dict]:
    """Return what became of the training of each variant: its error, and the faults found in it."""
    write_project(folder, chosen)
    done = python(ROOT, 220, "-m", "tests.cuda.trainings", str(folder), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, dict]:
    """What became of the first variant of each model, of the toys, and of faulty tasks."""
    return trained(tmp_path_factory.mktemp("cuda"), FIRST.values())


@pytest.fixture(scope="module")
def further(tmp_path_factory) -> dict[str, dict]:
    """What became of the other variants."""
    return trained(tmp_path_factory.mktemp("cuda"), VARIANTS.keys() - {*FIRST.values()})


@pytest.mark.parametrize("name", [*FIRST.values(), *NAMES])
def test_on_a_gpu_a_task_trains_validates_predicts_and_resumes_and_no_update_waits_for_it(outcomes, name):
    assert outcomes[name] == {"error": "", "faults": []}


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(VARIANTS.keys() - {*FIRST.values()}))
def test_on_a_gpu_other_networks_of_a_task_do_so_too(further, name):
    assert further[name] == {"error": "", "faults": []}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("a tensor of the CPU", "expected all tensors to be on the same device, but found cuda:0 and cpu"),
        ("a generator of the CPU", "expected a 'cuda' device type for generator but found 'cpu'"),
        ("an array", "can't convert cuda:0 device type tensor to numpy"),
    ],
)
def test_what_fails_on_a_gpu_fails_here(outcomes, fault, error):
    assert error in outcomes[fault]["error"]
    assert "tests/cuda/trainings.py" in outcomes[fault]["error"]


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("a number", "a number is read"),
        ("a mask", "a selection by a mask, whose size only the GPU knows"),
        ("a constant", "a blocking copy to the GPU"),
        ("fp16", "a recurrent layer under autocast, which cuDNN computes in fp16"),
    ],
)
def test_what_is_slow_or_less_precise_on_a_gpu_is_found_here(outcomes, fault, what):
    assert not outcomes[fault]["error"]
    found = [(each["what"], each["part"]) for each in outcomes[fault]["faults"]]
    assert (what, "an update") in found
    assert all(each["where"].startswith("tests/cuda/trainings.py:") for each in outcomes[fault]["faults"])
