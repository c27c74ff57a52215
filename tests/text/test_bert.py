"""A BERT in a folder of Hugging Face's computes what it does in transformers, or is rejected with the reason."""

import json
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.errors import PedigreeError
from components.text import wordpiece
from components.text.networks import bert_folder
from components.text.networks.bert import Bert
from components.text.params import BertParams
from tests.text import bert_folders
from tests.text.bert_folders import SIZE, WORDS

TEXTS = ["The cat sat.", "My card, lost?", "sat", "naïve cats sit on the mat; Zürich 42 !" * 2]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return bert_folders.write(tmp_path_factory.mktemp("bert") / "tiny")


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return shutil.copytree(original, tmp_path / "copy")


def loaded(folder: Path, size: BertParams = SIZE) -> Bert:
    torch.manual_seed(0)
    network = Bert(size, len(WORDS), 0.1).eval()
    names = bert_folder.load(network, size, wordpiece.load(wordpiece.of_folder(folder)), folder)
    assert names == {name for name, _ in network.named_parameters()}
    return network


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    token = torch.randint(5, len(WORDS), (3, 17), generator=generator)
    return token, torch.tensor([17, 9, 1]), torch.tensor([6, 9, 1])


def expect_rejected(folder: Path, problem: str, size: BertParams = SIZE) -> None:
    with pytest.raises(PedigreeError, match=problem) as found:
        loaded(folder, size)
    assert "\n" not in str(found.value)


@torch.no_grad()
def test_the_vectors_of_each_token_are_those_of_transformers(folder):
    transformers = pytest.importorskip("transformers", reason="transformers, of the extra [dev], is not installed")
    token, length, first = batch()
    place = torch.arange(token.shape[1])
    reference = transformers.BertModel.from_pretrained(folder).eval()
    expected = reference(
        token, attention_mask=(place < length[:, None]).long(), token_type_ids=(place >= first[:, None]).long()
    ).last_hidden_state
    found = loaded(folder)(token, length, first)
    for row, count in enumerate(length.tolist()):
        torch.testing.assert_close(found[row, :count], expected[row, :count], rtol=0, atol=1e-5)


def test_the_tokens_of_texts_and_pairs_are_those_of_transformers(folder):
    transformers = pytest.importorskip("transformers", reason="transformers, of the extra [dev], is not installed")
    reference = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    tokenizer = wordpiece.load(folder / "vocab.txt")
    for text in TEXTS:
        assert tokenizer.encode(text).ids == reference(text)["input_ids"]
        pair, expected = tokenizer.encode(text, TEXTS[0]), reference(text, TEXTS[0])
        assert (pair.ids, pair.type_ids) == (expected["input_ids"], expected["token_type_ids"])


@torch.no_grad()
def test_what_follows_the_end_of_a_sample_changes_none_of_its_vectors(folder):
    network, (token, length, first) = loaded(folder), batch()
    alone = network(token[1:2, :9], length[1:2], first[1:2])
    other = token.clone()
    other[1, 9:] = 7
    torch.testing.assert_close(network(token, length, first)[1:2, :9], alone, rtol=0, atol=1e-5)
    assert torch.equal(network(other, length, first)[1, :9], network(token, length, first)[1, :9])


@torch.no_grad()
def test_a_sample_of_one_text_needs_no_boundary(folder):
    network, (token, length, _) = loaded(folder), batch()
    assert torch.equal(network(token, length), network(token, length, first=length))


@torch.no_grad()
def test_weights_below_a_head_with_old_names_or_in_half_precision_are_the_same_weights(folder):
    expected = loaded(folder)(*batch())
    file = folder / "model.safetensors"
    tensors = load_file(file)
    old = {"weight": "gamma", "bias": "beta"}
    tensors = {re.sub(r"LayerNorm\.(\w+)$", lambda m: f"LayerNorm.{old[m[1]]}", k): v for k, v in tensors.items()}
    save_file({f"bert.{name}": tensor for name, tensor in tensors.items()}, file)
    assert torch.equal(loaded(folder)(*batch()), expected)
    save_file({name: tensor.half() for name, tensor in tensors.items()}, file)
    torch.testing.assert_close(loaded(folder)(*batch()), expected, rtol=0.05, atol=0.05)


def test_a_tokenizer_is_the_same_from_a_json_file_which_neither_cuts_nor_pads(folder):
    words = wordpiece.load(folder / "vocab.txt")
    expected = [words.encode(text).ids for text in TEXTS]
    words.enable_truncation(4)
    words.enable_padding(length=12)
    words.save(str(folder / "tokenizer.json"))
    read = wordpiece.load(wordpiece.of_folder(folder))
    assert [read.encode(text).ids for text in TEXTS] == expected


def test_capital_letters_and_accents_are_kept_if_the_vocabulary_has_capital_letters(folder):
    (folder / "vocab.txt").write_text("\n".join([*WORDS, "Cat", "ü"]))
    cased, uncased = wordpiece.load(folder / "vocab.txt"), bert_folders.WORDS
    assert cased.encode("Cat cat").tokens == ["[CLS]", "Cat", "cat", "[SEP]"]
    (folder / "vocab.txt").write_text("\n".join(uncased))
    assert wordpiece.load(folder / "vocab.txt").encode("Cat cat").tokens == ["[CLS]", "cat", "cat", "[SEP]"]


@pytest.mark.parametrize("name", ["vocab.txt", "model.safetensors", "config.json"])
def test_a_missing_file_is_named(original, folder, name):
    tokenizer = wordpiece.load(original / "vocab.txt")
    (folder / name).unlink()
    with pytest.raises(PedigreeError, match=rf"copy has (no|neither) .*{name}"):
        bert_folder.load(Bert(SIZE, len(WORDS), 0), SIZE, tokenizer, folder)


def test_a_folder_in_the_place_of_the_settings_is_no_file(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    expect_rejected(folder, r"copy has no file config\.json")


def test_pickled_weights_are_not_loaded(folder):
    (folder / "model.safetensors").unlink()

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("code of a file was run",))

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    expect_rejected(folder, r"its weights in pytorch_model\.bin, which could run code")


def test_weights_and_settings_of_other_networks_are_rejected(folder):
    config = json.loads((folder / "config.json").read_text())
    for changes, problem in (
        ({"model_type": "roberta"}, "of the type 'roberta', not 'bert'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu', and only 'gelu' is read"),
        ({"hidden_size": 64}, r"hidden_size 64 instead of 32\): set train.model.bert to {layers: 2, hidden: 64, "),
        ({"position_embedding_type": "relative_key"}, "only 'absolute' is read"),
    ):
        (folder / "config.json").write_text(json.dumps(config | changes))
        expect_rejected(folder, problem)
    (folder / "config.json").write_text("{")
    expect_rejected(folder, r"config\.json is not JSON")
    (folder / "config.json").write_text(json.dumps(config))
    save_file({"distilbert.embeddings.word_embeddings.weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    expect_rejected(folder, r"lacks 29 of the 29 tensors of a BERT")
    (folder / "model.safetensors").write_bytes(b"\x10")
    expect_rejected(folder, "cannot be read and seems damaged")


def test_a_tensor_of_another_shape_and_a_foreign_vocabulary_are_rejected(folder):
    tensors = bert_folders.tensors()
    tensors["encoder.layer.1.output.dense.weight"] = torch.zeros(3, 3)
    save_file(tensors, folder / "model.safetensors")
    expect_rejected(folder, r"does not fit its config\.json: layers\.1\.narrow\.weight is \(3, 3\)")
    tokenizer = wordpiece.load(folder / "vocab.txt")
    (folder / "vocab.txt").write_text("\n".join([*WORDS[:-1], "other"]))
    with pytest.raises(PedigreeError, match="other tokens than those that the data were prepared with"):
        bert_folder.load(Bert(SIZE, len(WORDS), 0), SIZE, tokenizer, folder)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("tokenizer.json", "{}", "is no tokenizer.json of the tokenizers library"),
        (
            "tokenizer.json",
            '{"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}',
            "WordLevel, not",
        ),
        ("vocab.txt", "a\nb\n", r"has no token \[PAD\] and no \[UNK\]"),
        ("vocab.txt", "", "it is empty"),
        ("vocab.txt", "\ufeff".encode("utf-16"), "UTF-16"),
    ],
)
def test_a_file_that_is_no_tokenizer_of_a_bert_is_rejected(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(PedigreeError, match=problem):
        wordpiece.load(tmp_path / name)
