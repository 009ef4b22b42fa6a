import pytest
import torch

from videomae.engine.copying import DeviceCopies


def test_a_copy_to_the_device_that_a_tensor_is_on_is_the_tensor() -> None:
    tensor = torch.arange(6)
    assert DeviceCopies(torch.device("cpu"))(tensor) is tensor


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_is_computed_from_a_copy_comes_after_it() -> None:
    copies = DeviceCopies(torch.device("cuda"))
    for number in range(20):
        host = torch.full((2**20,), number, dtype=torch.uint8).pin_memory()
        assert int(copies(host).amax()) == int(copies(host).amin()) == number
