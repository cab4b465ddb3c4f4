"""The head: one network for each target, and what reaches them past it."""

import torch

from pyg_nsa.cell.models.head import Head


def test_plain_columns_reach_their_targets_by_a_linear_map():
    torch.manual_seed(0)
    z = torch.randn(3, 9)
    deep = Head(9, 4).eval()
    both = Head(9, 4, plain=[slice(6, 7), slice(7, 9)]).eval()
    both.load_state_dict(deep.state_dict(), strict=False)
    more = both(z) - deep(z)
    fitness, interaction = (one.weight[0] for one in both.plain)
    torch.testing.assert_close(more[:, 0], 16 * z[:, 6] * fitness[0])
    torch.testing.assert_close(more[:, 1], 16 * z[:, 7:] @ interaction)


def test_dropout_leaves_the_plain_columns_alone():
    torch.manual_seed(0)
    head = Head(5, 4, dropout=0.9, plain=[slice(3, 5), slice(3, 5)])
    for one in head.each:
        for parameter in one.parameters():
            torch.nn.init.zeros_(parameter)
    z = torch.randn(6, 5)
    assert torch.equal(head(z), head(z)) and head(z).abs().min() > 0
    head(z).sum().backward()
    assert all(one.weight.grad.abs().min() > 0 for one in head.plain)


def test_where_fitness_is_sure_its_network_counts_less():
    torch.manual_seed(0)
    head = Head(5, 4, plain=[slice(3, 5), slice(3, 5)], sure=4).eval()
    z = torch.randn(6, 5)
    z[:, 4] = torch.tensor([0.0, 1.0, 0.0, 1.0, 1.0, 0.0]).asinh()
    each = torch.cat([one(z) for one in head.each], dim=-1)
    plain = torch.cat([one(16 * z[:, 3:]) for one in head.plain], dim=-1)
    share = torch.where(z[:, 4] > 0, 1 - head.trust.sigmoid(), 1.0)
    expected = torch.stack([each[:, 0] * share, each[:, 1]], dim=-1) + plain
    torch.testing.assert_close(head(z), expected)
    head(z).square().sum().backward()
    assert head.trust.grad.abs() > 0


def test_without_a_sure_column_there_is_no_trust():
    assert Head(5, 4, plain=[slice(3, 5), slice(3, 5)]).trust is None
