"""Whatever breaks, in whatever order, and whenever the controller dies: what must hold of incidents."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unit.incident_world import TICK_S, IncidentWorld
from vagus_controller.core.causes import Key

SITES = st.sampled_from(
    (
        {"x": ("a", "b"), "y": ("c", "d")},
        {"x": ("a",), "y": ("b",), "z": ("c",)},
        {"": ("a", "b", "c", "d")},
        {"x": ("a", "b", "c"), "y": ("d",)},
    )
)
NAMES = ("a", "b", "c", "d")


class Step(NamedTuple):
    kind: str
    node: str
    peer: str
    path: str
    pause_s: float


STEPS = st.builds(
    Step,
    st.sampled_from(
        ("cut all", "cut node", "cut link", "sick", "down", "mute", "stop", "busy", "etcd", "heal", "restart", "term")
    ),
    st.sampled_from(NAMES),
    st.sampled_from(NAMES),
    st.sampled_from(("overlay", "backup")),
    st.sampled_from((0.5, 1.0, 3.0, 6.0, 12.0, 40.0)),
)


def do(world: IncidentWorld, step: Step) -> None:
    node = step.node if step.node in world.names else world.names[0]
    pair = (min(node, step.peer), max(node, step.peer))
    match step.kind:
        case "cut all":
            world.cut(step.path)
        case "cut node":
            world.cut(step.path, node)
        case "cut link" if pair in world.pairs:
            world.dead.add((pair, step.path))
        case "sick" if pair in world.pairs:
            world.sick[pair, step.path] = "degraded"
        case "down":
            world.down.add(node)
        case "mute":
            world.mute.add(node)
        case "stop" if node not in world.down:
            world.stop(node)
        case "busy":
            world.busy.add(node)
        case "etcd":
            world.etcd[node] = "fails"
        case "term":
            world.term += 1
        case "heal":
            world.heal()
        case "restart":
            world.restart()


def homes(world: IncidentWorld) -> dict[Key, list[int]]:
    """Every trouble that lasts, and the incidents that it is in, news or not."""
    found: dict[Key, list[int]] = {}
    for number, incident in enumerate(world.incidents._homes.live.values()):
        for trouble in incident.bad():
            found.setdefault(trouble.key, []).append(number)
    return found


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(SITES, st.booleans(), st.lists(STEPS, max_size=12))
def test_each_bad_verdict_is_in_exactly_one_incident(
    sites: dict[str, tuple[str, ...]], etcd: bool, story: list[Step]
) -> None:
    members = tuple(sorted(name for names in sites.values() for name in names))[:3] if etcd else ()
    world = IncidentWorld(sites, members=members)

    def check() -> None:
        found = homes(world)
        assert all(len(each) == 1 for each in found.values()), found
        if not world.incidents._in_doubt:
            assert world.bad() - found.keys() == set()
        for view in world.open:
            assert view.title
            assert view.why
            assert view.state == "open"
            assert view.troubles_total

    for step in story:
        do(world, step)
        world.run(step.pause_s, check)
    world.heal()
    for _ in range(200):
        world.run(5)
        if not world.incidents._homes.live:
            break
    assert homes(world) == {}
    assert world.open == ()
    told = {each.id: each for each in world.told}
    assert all(each.state in ("over", "merged") for each in told.values())


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(3, 7),
    st.integers(1, 4),
    st.data(),
)
def test_a_dead_node_in_any_topology_opens_exactly_one(count: int, sites: int, data: st.DataObject) -> None:
    names = [f"n{number}" for number in range(count)]
    every = [(a, b) for index, a in enumerate(names) for b in names[index + 1 :]]
    pairs = data.draw(st.lists(st.sampled_from(every), min_size=count - 1, unique=True))
    # Who has no peer has no links, and is as good an example; the victim has some, or nobody could tell.
    victim = data.draw(st.sampled_from(sorted({node for pair in pairs for node in pair})))
    members = data.draw(st.sampled_from(((), tuple(names[:3]), (names[0], victim))))
    of: dict[str, tuple[str, ...]] = {}
    for number, name in enumerate(names):
        site = f"s{number % sites}"
        of[site] = (*of.get(site, ()), name)
    world = IncidentWorld(of, members=tuple(dict.fromkeys(members)), pairs=pairs)
    world.run(data.draw(st.sampled_from((0.0, 0.5, 1.0, 1.5))))
    world.down = {victim}
    world.run(60)
    found = world.the_one()
    assert found.title.startswith((f"{victim} is", "site"))
    assert len({each.id for each in world.told}) == 1


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(SITES, st.sampled_from(("cut all", "cut node", "down", "busy")), st.floats(0.5, 80.0), st.integers(1, 3))
def test_a_restart_at_any_moment_changes_no_number(
    sites: dict[str, tuple[str, ...]], kind: str, after_s: float, times: int
) -> None:
    world = IncidentWorld(sites)
    do(world, Step(kind, world.names[-1], "", "overlay", 0.0))
    world.run(round(after_s / TICK_S) * TICK_S)
    before = {each.id for each in world.open}
    for _ in range(times):
        world.restart()
        world.run(15)
    after = {each.id for each in world.open}
    assert before <= after
    assert len(after) <= 1
    world.heal()
    world.run(60)
    assert world.open == ()
