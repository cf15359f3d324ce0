# SPDX-License-Identifier: Apache-2.0
import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Models this small gain nothing from more threads, and lose much to them on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
