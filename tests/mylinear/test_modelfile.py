import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mylinear import MyLinear
from mylinear.errors import CheckpointError
from mylinear.modelfile import load_model, save_model
from tests.cases import FLOAT_DTYPES


@pytest.mark.parametrize("dtype", FLOAT_DTYPES, ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_model_comes_back_to_the_bit(tmp_path, dtype, bias):
    model = nn.Sequential(MyLinear(3, 5, dtype, bias=bias), nn.ReLU(), MyLinear(5, 1, dtype))
    save_model(tmp_path / "m", model)
    back = load_model(tmp_path / "m")
    x = torch.randn(4, 3).to(dtype)
    assert torch.equal(back(x), model(x))
    assert not back.training


def test_a_model_is_its_own_when_its_file_is_written_anew(tmp_path):
    model = MyLinear(64, 64)
    save_model(tmp_path / "m", model)
    back = load_model(tmp_path / "m")
    with (tmp_path / "m").open("r+b") as file:
        file.write(bytes((tmp_path / "m").stat().st_size))
    assert torch.equal(back.weight, model.weight)


def test_a_single_layer_is_no_sequence(tmp_path):
    save_model(tmp_path / "m", MyLinear(2, 1))
    assert type(load_model(tmp_path / "m")) is MyLinear


def test_other_layers_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="Tanh"):
        save_model(tmp_path / "m", nn.Sequential(MyLinear(2, 2), nn.Tanh()))
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_file_that_is_cut_short_is_refused(tmp_path, size):
    save_model(tmp_path / "m", MyLinear(2, 1))
    (tmp_path / "m").write_bytes((tmp_path / "m").read_bytes()[:size])
    with pytest.raises(CheckpointError, match="expected a whole model file"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize(
    "layers", ['{"layer": "os.system"}', '{"layer": "MyLinear"}', "[", '{"layer": "ReLU"}', "7"]
)
def test_a_file_that_describes_no_such_model_is_refused(tmp_path, layers):
    metadata = {"model": '{"format": "mylinear-model-1", "layers": ' + layers + "}"}
    save_file({"weight": torch.ones(1, 2)}, tmp_path / "m", metadata)
    with pytest.raises(CheckpointError):
        load_model(tmp_path / "m")


@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [
        ("[20000, 40000]", "float32"),
        ("[1000000000, 1000000000]", "float32"),
        ("[Infinity, 1]", "float32"),
        ("[-2, 1]", "float32"),
        ("[2, 1]", "float64"),
    ],
)
def test_sizes_and_dtypes_that_the_tensors_do_not_have_cost_nothing(tmp_path, sizes, dtype):
    layer = f'{{"layer": "MyLinear", "sizes": {sizes}, "bias": false, "dtype": "{dtype}"}}'
    metadata = {"model": f'{{"format": "mylinear-model-1", "layers": {layer}}}'}
    save_file({"weight": torch.ones(1, 2)}, tmp_path / "m", metadata)
    # No number is drawn for a parameter that the file has, or should have.
    state = torch.get_rng_state()
    with pytest.raises(CheckpointError, match="expected a whole model file"):
        load_model(tmp_path / "m")
    assert torch.equal(torch.get_rng_state(), state)


def test_equal_models_are_equal_files(tmp_path):
    model = MyLinear(3, 2)
    for index in range(8):  # an order that is drawn anew would be the same 8 times once in 128
        save_model(tmp_path / str(index), model)
    assert len({(tmp_path / str(index)).read_bytes() for index in range(8)}) == 1
