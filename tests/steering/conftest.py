import pytest
import torch

from refusal_utils.directions.estimation import normalize


@pytest.fixture(scope="package")
def direction(chat) -> torch.Tensor:
    return normalize(torch.randn(chat.d_model, generator=torch.Generator().manual_seed(5)))


@pytest.fixture(scope="package")
def other(chat) -> torch.Tensor:
    return normalize(torch.randn(chat.d_model, generator=torch.Generator().manual_seed(8)))
