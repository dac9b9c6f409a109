import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from robustvit.threat import NORMS, ThreatModel, format_eps, parse_eps

EPS = {"linf": 8 / 255, "l2": 0.5, "l1": 3.0}


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(0), (6, 4, 4, 3))


def keys(n):
    return jax.random.split(jax.random.key(7), n)


@pytest.mark.parametrize("norm", NORMS)
def test_projection_lands_inside_and_is_idempotent(norm, images):
    threat = ThreatModel(norm, EPS[norm])
    far = images + 3 * jax.random.normal(jax.random.key(1), images.shape)
    x_adv = threat.project(far, images)
    assert threat.distance(x_adv, images).max() <= EPS[norm] + 1e-6
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    np.testing.assert_allclose(threat.project(x_adv, images), x_adv, atol=1e-6)
    np.testing.assert_array_equal(threat.project(images, images), images)


@pytest.mark.parametrize("norm", NORMS)
def test_zero_eps_is_the_identity(norm, images):
    threat = ThreatModel(norm, 0.0)
    np.testing.assert_array_equal(threat.random_start(images, keys(6)), images)
    np.testing.assert_allclose(threat.project(1 - images, images), images, atol=1e-7)


def test_l1_projection_is_the_nearest_point_of_ball_and_box():
    """Against a general-purpose solver, with the box active."""
    x = np.array([0.9, 0.1, 0.5, 0.0, 1.0, 0.3])
    y = x + np.array([0.5, -0.4, 0.8, -0.3, 0.2, 0.05])
    eps = 0.7
    parts = minimize(  # x + p - q, p and q the two signs of the change
        lambda pq: np.sum((x + pq[:6] - pq[6:] - y) ** 2),
        np.zeros(12),
        bounds=[(0, 1 - v) for v in x] + [(0, v) for v in x],
        constraints={"type": "ineq", "fun": lambda pq: eps - pq.sum()},
        tol=1e-12,
    ).x
    as_image = lambda v: jnp.asarray(v, jnp.float32).reshape(1, 1, 2, 3)  # noqa: E731
    ours = ThreatModel("l1", eps).project(as_image(y), as_image(x))
    np.testing.assert_allclose(ours.ravel(), x + parts[:6] - parts[6:], atol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
def test_ascent_is_the_best_move_of_its_length(norm, images):
    """No other move of the same length raises a linear function more."""
    gradient = jax.random.normal(jax.random.key(2), images.shape)
    step = {"linf": 0.01, "l2": 0.1, "l1": 2.5}[norm]
    threat = ThreatModel(norm, 1.0)
    move = threat.ascent(images, gradient, step) - images
    assert threat.distance(images + move, images) == pytest.approx(step, rel=1e-4)
    gain = jnp.sum(move * gradient, (1, 2, 3))
    if norm == "l1":  # inside the box, as no single pixel can move by 2.5
        x, g = np.asarray(images, float), np.asarray(gradient, float)
        for i in range(len(x)):
            room = np.concatenate([1 - x[i].ravel(), x[i].ravel()])
            best = linprog(
                -np.concatenate([g[i].ravel(), -g[i].ravel()]),
                A_ub=np.ones((1, room.size)),
                b_ub=[step],
                bounds=[(0, r) for r in room],
            )
            assert gain[i] == pytest.approx(-best.fun, rel=1e-4)
    else:
        size = jnp.abs(gradient).sum((1, 2, 3))
        if norm == "l2":
            size = jnp.sqrt(jnp.square(gradient).sum((1, 2, 3)))
        np.testing.assert_allclose(gain, step * size, rtol=1e-4)


def test_random_starts_fill_the_ball():
    x = jnp.full((2000, 1, 2, 3), 0.5)  # the box is out of reach
    for norm, eps in (("linf", 0.1), ("l2", 0.1), ("l1", 0.1)):
        threat = ThreatModel(norm, eps)
        distance = threat.distance(threat.random_start(x, keys(2000)), x)
        # Uniform in a ball of dimension 6: the radius has distribution r^6.
        assert distance.max() <= eps + 1e-6
        assert jnp.mean((distance / eps) ** 6) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("norm", NORMS)
def test_random_start_depends_on_the_key_only(norm, images):
    threat = ThreatModel(norm, EPS[norm])
    together = threat.random_start(images, keys(6))
    alone = threat.random_start(images[4:5], keys(6)[4:5])
    np.testing.assert_allclose(together[4:5], alone, atol=1e-7)
    assert not np.allclose(together[0] - images[0], together[1] - images[1])


def test_eps_is_a_leaf_and_the_norm_is_not():
    traces = []

    @jax.jit
    def project(threat, x):
        traces.append(threat.norm)
        return threat.project(x + 1, x)

    x = jnp.zeros((1, 1, 1, 3))
    for eps in (0.1, 0.2, 0.3):
        assert project(ThreatModel("linf", eps), x).max() == pytest.approx(eps)
    project(ThreatModel("l2", 0.1), x)
    assert traces == ["linf", "l2"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5/255", 0.5 / 255),
        ("8/255", 8 / 255),
        ("0.03", 0.03),
        ("0", 0.0),
        (0.5, 0.5),
        (4 / 255, 4 / 255),
    ],
)
def test_eps_is_read(text, value):
    assert parse_eps(text) == value
    assert ThreatModel("linf", text).eps == value


@pytest.mark.parametrize(
    ("norm", "eps", "message"),
    [
        ("linf", 8, "did you mean '8/255'"),
        ("linf", "8", "did you mean '8/255'"),
        ("linf", "a/255", "is not a number"),
        ("linf", "1/0", "is not a number"),
        ("l2", -0.5, "at least 0"),
        ("l2", float("nan"), "must be finite"),
        ("linfty", 0.1, "not one of linf, l2, l1"),
    ],
)
def test_wrong_threats_are_refused(norm, eps, message):
    with pytest.raises(ValueError, match=message):
        ThreatModel(norm, eps)


def test_large_eps_is_fine_in_other_norms():
    assert ThreatModel("l1", 75).eps == 75.0


@pytest.mark.parametrize(
    ("eps", "text"),
    [(8 / 255, "8/255"), (0.5, "0.5"), (0.0, "0"), (np.float32(4 / 255), "4/255")],
)
def test_eps_is_written_as_people_write_it(eps, text):
    assert format_eps(float(eps)) == text
