"""The files of a trained network hold its weights, however they lie in memory."""

import pytest
import torch
from torch import nn

from components.training import model_files


def flattened(layer: nn.RNNBase) -> nn.RNNBase:
    """Move a layer's weights into one piece of memory, as cuDNN does on a GPU."""
    whole = torch.cat([weights.detach().flatten() for weights in layer.parameters()])
    for weights, part in zip(layer.parameters(), whole.split([w.numel() for w in layer.parameters()]), strict=True):
        weights.data = part.view_as(weights)
    return layer


class Tied(nn.Module):
    """An embedding that is also the output layer, around a recurrent layer."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.embedding, self.layer, self.output = nn.Embedding(5, 4), layer, nn.Linear(4, 5)
        self.output.weight = self.embedding.weight


@pytest.mark.parametrize("layer", [nn.LSTM(4, 3, 2, bidirectional=True), nn.GRU(4, 3)], ids=["lstm", "gru"])
def test_weights_that_share_a_piece_of_memory_are_saved_and_loaded(layer, tmp_path):
    model = Tied(flattened(layer))
    model_files.save_weights(tmp_path / model_files.WEIGHTS, model)
    again = Tied(type(layer)(4, 3, layer.num_layers, bidirectional=layer.bidirectional))
    model_files.load_weights(again, tmp_path)
    for name, weights in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weights), name
    first, second = (each.untyped_storage().data_ptr() for each in list(layer.parameters())[:2])
    assert first == second, "the layer itself stays as it is"
