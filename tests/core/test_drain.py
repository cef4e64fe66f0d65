"""Draining in the core: what is announced in each stage, and who still reaches workloads that stay."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from bgpd.core.drain import left_behind
from bgpd.core.explain import Explainer
from bgpd.core.pipeline import Pipeline
from bgpd.model import event as ev
from bgpd.model.drain import Stage
from bgpd.model.health import StaticPrefix
from bgpd.model.pool import Block, Mode
from bgpd.model.route import Announcement
from tests.core import world as w

pytestmark = pytest.mark.core

SERVICE = w.P("203.0.114.1/32")
AVOID = Announcement(communities=(0xFFFF0000,))


def serving() -> Pipeline:
    """A node with a block and a service, each announced to two external routers."""
    return w.feed(w.running(), [replace(w.CONFIGURED, announce=(StaticPrefix(prefix=SERVICE, check=""),))])


def announced(pipeline: Pipeline) -> dict[str, Announcement]:
    return {str(key[1]): one for key, one in pipeline.tables.adj_rib_out.snapshot().items() if key[0] == w.TOR1}


def test_draining_asks_to_be_avoided_and_drained_withdraws() -> None:
    """Each stage's announcements: GRACEFUL_SHUTDOWN on all, then none, then as before; the neighbors never change."""
    pipeline = serving()
    before, neighbors = announced(pipeline), pipeline.tables.neighbors.snapshot()

    w.feed(pipeline, [ev.DrainChanged(Stage.DRAINING)])
    assert {str(w.OWN_BLOCK): AVOID, str(SERVICE): AVOID} == announced(pipeline)
    w.feed(pipeline, [ev.DrainChanged(Stage.DRAINED)])
    assert {} == announced(pipeline)
    w.feed(pipeline, [ev.DrainChanged(Stage.OFF)])
    assert before == announced(pipeline)

    assert neighbors == pipeline.tables.neighbors.snapshot()


def test_kept_blocks_stay_announced_and_services_leave() -> None:
    """With keep_blocks the drained node announces its blocks with GRACEFUL_SHUTDOWN and nothing else."""
    pipeline = w.feed(serving(), [ev.DrainChanged(Stage.DRAINED, keep_blocks=True)])

    assert {str(w.OWN_BLOCK): AVOID} == announced(pipeline)


def test_a_block_that_comes_while_drained_is_not_announced() -> None:
    """What becomes own after the drain is withheld, too, and explained so."""
    pipeline = w.feed(serving(), [ev.DrainChanged(Stage.DRAINED)])
    block = w.P("10.65.7.0/26")
    w.feed(pipeline, w.owned(block, "node1"))

    step = next(
        one
        for one in Explainer(pipeline.state, pipeline.forwarder, pipeline.exporter).prefix(block).steps
        if one.name == "announced"
    )
    assert {} == announced(pipeline)
    assert "to nobody" == step.outcome
    assert any("this node is drained" in line for line in step.detail)


@pytest.mark.parametrize(
    ("pool", "who"),
    [
        (w.POOL, "all, directly in its own subnet, else by fallback (VXLAN)"),
        (replace(w.POOL, fallback=()), "only those in its own subnet, since there is no fallback for it"),
        (replace(w.POOL, vxlan_mode=Mode.ALWAYS), "all, through the pool's tunnel as before"),
    ],
)
def test_workloads_that_stay_are_named_with_who_reaches_them(pool: object, who: str) -> None:
    """Each own block in use is told with who still reaches it, by its pool; an empty one is not told."""
    pipeline = serving()
    assert [] == list(left_behind(pipeline.state.facts))

    w.feed(pipeline, [ev.PoolChanged(pool), ev.BlockChanged(Block(cidr=w.OWN_BLOCK, node="node1", in_use=2))])  # type: ignore[arg-type]

    (line,) = left_behind(pipeline.state.facts)
    assert (
        line == f"{w.OWN_BLOCK}: 2 addresses in use; nobody outside of the cluster reaches it, and of the nodes {who}"
    )
