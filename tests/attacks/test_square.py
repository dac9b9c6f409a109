"""Square: published sizes and schedule, proposals inside the ball, solved toys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustvit.attacks import Square, square, square_bumps
from robustvit.attacks.slots import deterministic
from robustvit.attacks.slots import run as run_slots
from robustvit.threat import ThreatModel
from tests.attacks import reference

B, K = 16, 4
X = np.random.default_rng(1).uniform(size=(B, 9, 7, 3)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(0), B)
ZERO = np.zeros(B, np.int32)
EPS = {"linf": 0.05, "l2": 0.7, "l1": 6.0}
NORMS = tuple(EPS)


@pytest.mark.parametrize(
    ("side", "firsts", "expected"),
    [
        (32, [0, 11, 51, 201, 501, 1001, 2001, 4001], [29, 20, 14, 10, 7, 5, 4, 3]),
        (224, [0, 11, 51, 201, 501, 1001, 2001, 4001],
         [200, 142, 100, 71, 50, 35, 25, 18]),
        (28, [0, 11, 51, 201, 501, 1001, 2001, 4001], [25, 18, 13, 9, 6, 4, 3, 2]),
    ],
)  # fmt: skip
def test_windows_of_linf(side, firsts, expected):
    sizes = square.window_sizes(5000, 0.8, (side, side), "linf")[1:]
    changes = np.flatnonzero(np.diff(sizes, prepend=0))
    assert changes.tolist() == firsts
    assert sizes[changes].tolist() == expected


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (32, [29, 21, 15, 11, 7, 5, 5, 3]),
        (224, [201, 143, 101, 71, 51, 35, 25, 19]),
    ],
)
def test_windows_of_l2_and_l1(side, expected):
    for norm in ("l2", "l1"):
        sizes = square.window_sizes(5000, 0.8, (side, side), norm)[1:]
        firsts = [0, 11, 51, 201, 501, 1001, 2001, 4001]
        assert sizes[firsts].tolist() == expected


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_bumps_are_unit_and_change_sign_in_the_middle(norm):
    for side in (1, 2, 3, 6, 21):
        bump = square_bumps.bump_of(side, norm)
        length = np.abs(bump).sum() if norm == "l1" else np.linalg.norm(bump)
        assert bump.shape == (side, side) and length == pytest.approx(1, abs=1e-6)
        assert (bump[: side // 2] >= 0).all() and (bump[side // 2 :] <= 0).all()
    # 1 + 1/4 at the centre of 3 rows, from two rectangles, 1/4 around it.
    below = square_bumps.bump_of(7, "l2")[3:]
    assert below.min() == below[2, 3]


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_every_proposal_stays_inside_and_uses_the_budget(norm, compat):
    threat, attack = ThreatModel(norm, EPS[norm]), Square(queries=30, compat=compat)
    seen = []

    def forward(x, keys):
        seen.append(x)
        logits = jnp.sum(x, (1, 2, 3))[:, None] * jnp.array([0.0, 1.0])
        return logits + jnp.array([1e4, 0.0])

    state = attack.start(X, ZERO, ZERO, ZERO, threat, KEYS)
    step = jax.jit(lambda s: (attack.step(forward, s, threat), seen[-1]))
    for _ in range(31):
        state, x = step(state)
        size = threat.distance(x, X)
        assert size.max() <= EPS[norm] * (1 + 1e-6) + 1e-6
        assert size.min() > 0.5 * EPS[norm]
        assert x.min() >= 0 and x.max() <= 1
    assert state.done.all() and not state.broken.any()
    # The brighter the better here: the search has found some of that.
    gain = jnp.sum(state.x_adv - X, (1, 2, 3))
    assert (gain > 0).all()


def test_stripes_are_vertical_and_the_margin_only_falls():
    threat, attack = ThreatModel("linf", 0.05), Square(queries=40)
    forward = deterministic(reference.mlp(K, X.shape[1:]))
    y = np.asarray(forward(X, KEYS).argmax(-1), np.int32)
    x = 0.2 + 0.6 * X
    state = attack.start(x, y, ZERO, ZERO, threat, KEYS)
    step = jax.jit(lambda s: run_slots(attack, forward, s, threat, steps=1))
    state = step(state)
    delta = np.asarray(state.x_adv) - x
    np.testing.assert_allclose(np.abs(delta), 0.05, atol=1e-6)
    np.testing.assert_allclose(delta, np.broadcast_to(delta[:, :1], x.shape), atol=1e-6)
    margins = [state.margin]
    for _ in range(20):
        state = step(state)
        margins.append(state.margin)
    assert (np.diff(margins, axis=0) <= 0).all() and (margins[-1] < margins[0]).any()


@pytest.mark.parametrize("norm", NORMS)
def test_it_breaks_what_is_easy_to_break(norm):
    model = reference.mlp(K, X.shape[1:])
    y = np.asarray(model(X).argmax(-1), np.int32)
    threat, attack = ThreatModel(norm, 3 * EPS[norm]), Square(queries=300)
    state = attack.start(X, y, ZERO, ZERO, threat, KEYS)
    state = jax.jit(
        lambda s: run_slots(attack, deterministic(model), s, threat, steps=301)
    )(state)
    assert state.done.all() and state.broken.mean() > 0.5
    wrong = np.asarray(model(state.x_adv).argmax(-1) != y)
    np.testing.assert_array_equal(wrong, state.broken)


@pytest.mark.parametrize("last", [1, 0])
def test_windows_reach_every_row_and_column_but_in_the_authors_code(last):
    keys = jax.random.split(jax.random.key(0), 500)
    low = np.array(jax.vmap(lambda k: square_bumps.corner(k, 3, 9, 7, last))(keys))
    assert set(low[0]) == set(range(6 + last)) and set(low[1]) == set(range(4 + last))


@pytest.mark.parametrize(("compat", "same"), [(True, True), (False, False)])
def test_windows_are_shared_in_the_authors_code_alone(compat, same):
    threat, attack = ThreatModel("linf", 0.05), Square(queries=30, compat=compat)
    x = 0.2 + 0.6 * X

    def forward(x, keys):  # the first proposal after the stripes is never better
        return jnp.stack([jnp.zeros(len(x)) + 9, jnp.zeros(len(x))], 1)

    state = attack.start(x, ZERO, ZERO, ZERO, threat, KEYS)
    state = attack.step(forward, state, threat)
    state = state.replace(x_adv=jnp.asarray(x))
    seen = []
    attack.step(lambda x, keys: seen.append(x) or forward(x, keys), state, threat)
    change = np.sign(np.round((seen[0] - x) / 0.05))
    assert (np.abs(change - change[:1]).max() == 0) == same


def test_wrong_arguments():
    for arguments in ({"queries": 0}, {"p": 0.0}, {"restarts": 0}):
        with pytest.raises(ValueError, match="wanted counts"):
            Square(**arguments)
