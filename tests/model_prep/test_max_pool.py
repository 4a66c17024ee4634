# SPDX-License-Identifier: Apache-2.0
"""The max pool by rows and columns against the library's, and its gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from formats.arithmetic import Window
from model_prep import run


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (3, 3), (1, 3), (5, 2)])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (3, 1), (7, 7)])
@pytest.mark.parametrize("shape", [(5, 5), (9, 12)])
def test_as_the_library_does(
    kernel: tuple[int, int], stride: tuple[int, int], shape: tuple[int, int]
) -> None:
    x = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1))
    got = run.max_pool(Window(kernel, stride, (0, 0, 0, 0)), x)
    assert got.is_contiguous()
    assert torch.equal(got, F.max_pool2d(x, kernel, stride))
    assert x.equal(torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1)))


def test_one_of_equal_values_gets_the_gradient() -> None:
    with torch.enable_grad():  # the command line turns it off for its whole process
        x = torch.ones(1, 1, 2, 2, requires_grad=True)
        run.max_pool(Window((2, 2), (2, 2), (0, 0, 0, 0)), x).sum().backward()
    assert x.grad is not None
    assert sorted(x.grad.flatten().tolist()) == [0, 0, 0, 1]
