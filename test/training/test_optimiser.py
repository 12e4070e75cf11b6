"""Muon for the kernels, Adam for the rest."""

import copy

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from dsca_ros.training.optimiser import Optimiser, matrix  # noqa: E402


def small(seed: int = 0) -> nn.Module:
    """A wide kernel, a pointwise one, and one that is narrower than Muon takes."""
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 1), nn.ReLU(), nn.Conv2d(12, 4, 3))
    return layers.to(memory_format=torch.channels_last)


def step(network: nn.Module, optimiser: Optimiser, seed: int, learning_rate: float = 0.01) -> float:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 12, 12, generator=generator)
    loss = (network(x) - x[:, :1, 2:-2, 2:-2]).square().mean()
    loss.backward()
    optimiser.step(learning_rate)
    return loss.item()


def test_a_matrix_is_a_view_of_its_kernel():
    kernel = torch.randn(8, 5, 3, 3).to(memory_format=torch.channels_last)
    view = matrix(kernel)
    assert view.shape == (8, 45) and view.data_ptr() == kernel.data_ptr()
    torch.testing.assert_close(view[2, (1 * 3 + 2) * 5 + 4], kernel[2, 4, 1, 2])
    view[0, 0] = 7.0
    assert kernel[0, 0, 0, 0] == 7.0


def test_kernels_wide_enough_are_muons_and_all_else_is_adams():
    network = small()
    state = Optimiser(network, muon=True).state_dict()
    assert len(state["muon"]["param_groups"][0]["params"]) == 2  # the two wide kernels
    assert len(state["adam"]["param_groups"][0]["params"]) == 4  # three biases and the narrow kernel
    assert set(Optimiser(network, muon=False).state_dict()) == {"adam"}


def test_a_step_of_muon_is_as_large_in_every_direction():
    network = small()
    before = [p.detach().clone() for p in network.parameters()]
    optimiser = Optimiser(network, muon=True)
    step(network, optimiser, 0)
    after = list(network.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    for index in (0, 2):  # the wide kernels
        change = matrix(after[index].detach() - before[index])
        sizes = torch.linalg.svdvals(change)
        assert sizes.min() > 0.3 * sizes.max()
    narrow = torch.linalg.svdvals(matrix(after[4].detach() - before[4]))
    assert narrow.min() < 0.3 * narrow.max()  # Adam's


def test_without_muon_it_is_adam():
    one, other = small(), small()
    optimiser, adam = Optimiser(one, muon=False), torch.optim.Adam(other.parameters(), lr=0.01, betas=(0.9, 0.99))
    for seed in range(3):
        step(one, optimiser, seed)
        x = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
        adam.zero_grad()
        (other(x) - x[:, :1, 2:-2, 2:-2]).square().mean().backward()
        adam.step()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("muon", [True, False], ids=["muon", "adam"])
def test_gradients_are_cleared_and_the_rate_is_that_of_the_step(muon):
    network = small()
    optimiser = Optimiser(network, muon)
    before = copy.deepcopy(network.state_dict())
    step(network, optimiser, 0, learning_rate=0.0)
    assert all(p.grad is None or not p.grad.any() for p in network.parameters())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("muon", [True, False], ids=["muon", "adam"])
def test_the_loss_falls(muon):
    network = small()
    optimiser = Optimiser(network, muon)
    losses = [step(network, optimiser, 0) for _ in range(30)]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("muon", [True, False], ids=["muon", "adam"])
def test_a_restored_state_goes_on_bit_for_bit(muon):
    network = small()
    optimiser = Optimiser(network, muon)
    for seed in range(3):
        step(network, optimiser, seed)
    other = small(seed=9)
    other.load_state_dict(network.state_dict())
    restored = Optimiser(other, muon)
    restored.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    forgetful = copy.deepcopy(other)
    fresh = Optimiser(forgetful, muon)
    for seed in range(3, 6):
        for pair in ((network, optimiser), (other, restored), (forgetful, fresh)):
            step(*pair, seed)
    for a, b in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(network[0].weight, forgetful[0].weight)


def test_a_network_in_another_memory_format_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 8, 3))
    with pytest.raises(ValueError, match="channels_last"):
        Optimiser(network, muon=True)


def test_weight_decay_shrinks_muons_kernels_and_nothing_else():
    """By its share of the learning rate a step, beside what a step without it does."""
    free, held = small(), small()
    start = [p.detach().clone() for p in free.parameters()]
    step(free, Optimiser(free, muon=True), 0)
    step(held, Optimiser(held, muon=True, weight_decay=0.5), 0)
    for index, (a, b, before) in enumerate(zip(free.parameters(), held.parameters(), start, strict=True)):
        expected = a - 0.01 * 0.5 * before if index in (0, 2) else a
        torch.testing.assert_close(b, expected)
