"""The network: textbook formulas, the state that goes on, dropout that leaves the weights alone."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_model, save_model
from torch import nn
from torch.testing import assert_close

from components.tasks.language_model.model import build_model
from components.text.language_model import RECURRENT, LanguageModel, PlainRNN
from components.text.params import DropoutParams
from tests.conftest import BF16
from tests.tasks.language_model.tiny import text
from tests.tasks.language_model.values import prepared, tokenizer, values

CELLS = ("lstm", "gru", "rnn")
NONE = {"embedding": 0, "input": 0, "hidden": 0, "output": 0, "weight": 0}


def model(cell: str = "lstm", tie: bool = False, **dropout: float) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(cell, 11, 6, [8, 6], tie, DropoutParams(**(NONE | dropout)))


def tokens(length: int = 12, streams: int = 3) -> torch.Tensor:
    return torch.randint(11, (streams, length), generator=torch.Generator().manual_seed(1))


def sigma(x):
    return 1 / (1 + np.exp(-x))


def test_the_plain_unit_is_the_textbooks():
    torch.manual_seed(0)
    layer, x, h = PlainRNN(4, 5).double(), np.random.default_rng(0).normal(size=(7, 4)), np.full(5, 0.3)
    w = {name: weight.detach().numpy() for name, weight in layer.named_parameters()}
    outputs = []
    for x_t in x:
        h = sigma(w["weight_hh_l0"] @ h + w["xh.weight"] @ x_t + w["xh.bias"])
        outputs.append(sigma(w["ho.weight"] @ h + w["ho.bias"]))
    found, last = layer(torch.tensor(x)[None], torch.full((1, 1, 5), 0.3, dtype=torch.float64))
    assert_close(found[0], torch.tensor(np.array(outputs)))
    assert_close(last[0, 0], torch.tensor(h))


def test_an_lstm_layer_is_hochreiters_with_a_forget_gate():
    found = model()
    w = {name: weight.detach() for name, weight in found.layers[0].named_parameters()}
    x = found.embedding(tokens())  # (B, T, E)
    h = c = torch.zeros(3, 8)
    for x_t in x.unbind(1):
        gates = x_t @ w["weight_ih_l0"].T + w["bias_ih_l0"] + h @ w["weight_hh_l0"].T + w["bias_hh_l0"]
        i, f, g, o = gates.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    _, state = found(tokens())
    assert_close(state["h0"], h)
    assert_close(state["c0"], c)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("cut", [1, 5, 11])
def test_text_in_two_pieces_with_the_state_between_is_the_text_in_one(cell, cut):
    found, whole = model(cell).eval(), tokens()
    logits, state = found(whole)
    first, between = found(whole[:, :cut])
    second, after = found(whole[:, cut:], between)
    assert_close(torch.cat([first, second], 1), logits)
    assert state.keys() == after.keys()
    for name in state:
        assert state[name].shape[0] == len(whole)
        assert_close(after[name], state[name])


@pytest.mark.parametrize("cell", CELLS)
def test_a_prediction_knows_nothing_of_what_comes_after_it(cell):
    found, changed = model(cell).eval(), tokens()
    before, _ = found(changed)
    changed[:, 7] = (changed[:, 7] + 1) % 11
    after, _ = found(changed)
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.equal(before[:, 7], after[:, 7])


@pytest.mark.parametrize("where", list(NONE))
@pytest.mark.parametrize("cell", CELLS)
def test_dropout_acts_in_training_alone_and_leaves_the_weights_as_they_are(cell, where):
    found = model(cell, **{where: 0.5})
    weights = copy.deepcopy(found.state_dict())
    plain, _ = model(cell).eval()(tokens())
    assert torch.equal(found.eval()(tokens())[0], plain)
    trained, _ = found.train()(tokens())
    assert not torch.equal(trained, plain)
    F.cross_entropy(trained.flatten(0, 1), tokens().flatten()).backward()
    assert all(torch.equal(weights[name], value) for name, value in found.state_dict().items())
    idle = [name for name, weight in found.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []


def test_a_locked_mask_is_the_same_at_every_position_and_another_for_each_stream():
    found = model(output=0.5).train()
    seen = []
    found.output.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    found(tokens())
    dropped = seen[0] == 0  # (B, T, H)
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert 0 < dropped.float().mean() < 1
    assert not torch.equal(dropped[0], dropped[1])


def test_dropped_words_are_zero_wherever_they_stand():
    found = model(embedding=0.5).train()
    torch.manual_seed(3)
    vectors = found._embedded(torch.arange(11).repeat(2, 2))  # each word four times
    zero = (vectors == 0).all(2)
    assert 0 < zero.sum() < zero.numel()
    assert torch.equal(zero[:, :11], zero[:, 11:])
    remaining = ~zero[0, :11]
    assert_close(vectors[0, :11][remaining], 2 * found.embedding.weight[remaining])


def test_dropped_recurrent_weights_are_zero_and_the_others_larger():
    found = model(weight=0.5).train()
    seen = []
    found.layers[0].register_forward_pre_hook(
        lambda layer, inputs: seen.append(layer.weight_hh_l0.detach().clone())
    )
    found(tokens())
    raw = found.layers[0].get_parameter(RECURRENT)
    zero = seen[0] == 0
    assert 0.3 < zero.float().mean() < 0.7
    assert_close(seen[0][~zero], 2 * raw.detach()[~zero])


@pytest.mark.parametrize("cell", CELLS)
def test_tied_weights_are_one_tensor_in_the_file_and_after_it(tmp_path, cell):
    found = model(cell, tie=True).eval()
    save_model(found, str(tmp_path / "weights"))
    again = LanguageModel(cell, 11, 6, [8, 6], True, DropoutParams(**NONE)).eval()
    load_model(again, tmp_path / "weights")
    assert again.output.weight is again.embedding.weight
    assert torch.equal(again(tokens())[0], found(tokens())[0])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("tie", [False, True])
def test_an_untrained_network_is_about_as_surprised_as_a_fair_die(tmp_path, cell, tie):
    data = prepared(tmp_path, text(), prepare=tokenizer("char"))
    section = {"cell": cell, "embedding": 64, "hidden": 96, "layers": 2, "tie": tie, "orthogonal": True}
    torch.manual_seed(0)
    found = build_model(values(train={"model": section}), data.manifest).eval()
    size = found.output.out_features
    random = torch.randint(size, (8, 50))
    logits, _ = found(random)
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), random[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(size), rel=0.1)


def test_gates_start_orthogonal_and_the_forget_gate_open(tmp_path):
    data = prepared(tmp_path, text(), prepare=tokenizer("char"))
    section = {"embedding": 16, "hidden": 16, "layers": 2, "orthogonal": True, "forget_bias": 1.5}
    found = build_model(values(train={"model": section}), data.manifest)
    for layer in found.layers:
        for gate in layer.get_parameter(RECURRENT).chunk(4):
            assert_close(gate @ gate.T, torch.eye(16), atol=1e-5, rtol=0)
        biases = layer.bias_ih_l0 + layer.bias_hh_l0
        assert torch.equal(biases, torch.tensor([0, 1.5, 0, 0]).repeat_interleave(16))


@BF16
@pytest.mark.parametrize("cell", CELLS)
def test_bf16_computes_about_what_fp32_does(cell):
    found = model(cell).train()
    _, state = found(tokens())
    plain, _ = found(tokens(), state)
    with torch.autocast("cpu", torch.bfloat16):
        rough, after = found(tokens(), {name: part.detach() for name, part in state.items()})
    assert_close(rough.float(), plain, atol=0.03, rtol=0.05)
    rough.float().sum().backward()
    assert nn.utils.get_total_norm([w.grad for w in found.parameters()]).isfinite()
    assert after.keys() == state.keys()
