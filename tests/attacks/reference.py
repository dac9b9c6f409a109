"""Plain transcriptions of published pseudo-code, with stored tables and sorting."""

import jax
import jax.numpy as jnp
import numpy as np


def mlp(num_classes=6, shape=(4, 4, 3), seed=0, scale=1.0):
    """A smooth network that is no linear function: images to logits."""
    rng = np.random.default_rng(seed)
    n = int(np.prod(shape))
    first = jnp.asarray(rng.normal(size=(n, 24)) * 2 / np.sqrt(n), jnp.float32)
    last = jnp.asarray(rng.normal(size=(24, num_classes)) * scale, jnp.float32)

    def forward(images):
        return jnp.tanh((images.reshape(len(images), -1) - 0.5) @ first) @ last

    return forward


def apgd(value_and_grad, x, y, x0, norm, eps, steps):
    """Alg. 1 of arXiv:2003.01690, with the table of all losses of the original code.

    Returns the last misclassified iterate, whether there was none, best image, and all
    iterates.
    """

    def length(v):
        return jnp.sqrt(jnp.sum(v**2, (1, 2, 3), keepdims=True))

    def ball(z):
        if norm == "linf":
            return jnp.clip(jnp.clip(z, x - eps, x + eps), 0.0, 1.0)
        delta, size = z - x, length(z - x)
        inside = delta / (size + 1e-12) * jnp.minimum(eps, size)
        return jnp.clip(x + inside, 0.0, 1.0)

    def unit(g):
        return jnp.sign(g) if norm == "linf" else g / (length(g) + 1e-12)

    window, least = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1)
    shrink = max(int(0.03 * steps), 1)
    x_adv = x0
    logits, loss, grad = value_and_grad(x_adv)
    right = logits.argmax(-1) == y
    x_best, x_broken, grad_best, loss_best = x_adv, x_adv, grad, loss
    table = np.zeros((steps, len(x)), np.float32)
    size = jnp.full((len(x), 1, 1, 1), 2.0) * eps
    reduced, last_check, counter = np.ones(len(x), bool), loss_best, 0
    x_old, iterates = x_adv, [x_adv]
    for i in range(steps):
        momentum, x_old = x_adv - x_old, x_adv
        a = 0.75 if i else 1.0
        z = ball(x_adv + size * unit(grad))
        x_adv = ball(x_adv + a * (z - x_adv) + (1 - a) * momentum)
        iterates.append(x_adv)
        logits, loss, grad = value_and_grad(x_adv)
        wrong = logits.argmax(-1) != y
        right &= ~wrong
        x_broken = jnp.where(wrong[:, None, None, None], x_adv, x_broken)
        table[i] = loss
        better = loss > loss_best
        wide = better[:, None, None, None]
        x_best, grad_best = (
            jnp.where(wide, x_adv, x_best),
            jnp.where(wide, grad, grad_best),
        )
        loss_best = jnp.where(better, loss, loss_best)
        counter += 1
        if counter == window:
            # table[-1] is still all zeros when the first comparison reads it.
            ups = sum(table[i - j] > table[i - j - 1] for j in range(window))
            stuck = (ups <= 0.75 * window) | (~reduced & (last_check >= loss_best))
            reduced, last_check, wide = stuck, loss_best, stuck[:, None, None, None]
            size = jnp.where(wide, size / 2, size)
            x_adv, grad = (
                jnp.where(wide, x_best, x_adv),
                jnp.where(wide, grad_best, grad),
            )
            counter, window = 0, max(window - shrink, least)
    return x_broken, np.asarray(right), x_best, iterates


def move_sorted(x, w, b, p):
    """Least p-norm move (b, d) of rows x onto <w, .> = b in [0, 1]: by sorting, f64.

    In every norm the gain is a piecewise linear function of one number, whose corners
    are found exactly; where the plane is out of reach the box is filled.
    """
    out = np.zeros_like(x, dtype=np.float64)
    for row, (t, v, c) in enumerate(zip(x, w, b, strict=True)):
        t, v = t.astype(np.float64), v.astype(np.float64)
        gap = v @ t - c
        v, gap = (v, gap) if gap >= 0 else (-v, -gap)
        room = np.where(v > 0, t, np.where(v < 0, 1 - t, 0.0))
        size = np.abs(v)
        if p == "l1":
            length, left = np.zeros_like(t), gap
            for i in np.argsort(-size):
                if size[i] == 0:
                    break
                length[i] = min(room[i], max(left, 0) / size[i])
                left -= length[i] * size[i]
        else:
            rate = np.where(size > 0, 1.0, 0.0) if p == "linf" else size
            used = rate > 0
            corners = np.sort(room[used] / rate[used])
            gains = [(size * np.minimum(k * rate, room)).sum() for k in corners]
            at = np.searchsorted(gains, gap)
            if at == len(corners):
                length = room
            else:
                low = corners[at - 1] if at else 0.0
                base = gains[at - 1] if at else 0.0
                slope = (size * rate)[used][room[used] / rate[used] > low].sum()
                length = np.minimum((low + (gap - base) / slope) * rate, room)
        out[row] = -np.sign(v) * length
    return out


def fab(value_and_grad, x, y, norm, steps):
    """Targeted FAB from the original point, arXiv:1907.02044, in numpy.

    `value_and_grad` gives logits, the difference z_target - z_y and its gradient.
    Returns the nearest misclassified images, their distances, and all points visited.
    """
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    shape, b = x.shape, len(x)
    x0 = np.asarray(x, np.float64).reshape(b, -1)
    x1, best, distance, path = x0.copy(), x0.copy(), np.full(b, np.inf), []
    for _ in range(steps):
        _, df, w = value_and_grad(jnp.asarray(x1.reshape(shape), jnp.float32))
        w = np.asarray(w, np.float64).reshape(b, -1)
        plane = -np.asarray(df, np.float64) + (w * x1).sum(1)
        d1, d2 = move_sorted(x1, w, plane, norm), move_sorted(x0, w, plane, norm)
        a1 = np.maximum(np.linalg.norm(d1, order, 1), 1e-8)
        a2 = np.maximum(np.linalg.norm(d2, order, 1), 1e-8)
        alpha = np.clip(a1 / (a1 + a2), 0, 0.1)[:, None]
        x1 = np.clip((x1 + 1.05 * d1) * (1 - alpha) + (x0 + 1.05 * d2) * alpha, 0, 1)
        logits, _, _ = value_and_grad(jnp.asarray(x1.reshape(shape), jnp.float32))
        wrong = np.asarray(logits.argmax(-1) != y)
        t = np.linalg.norm(x1 - x0, order, 1)
        nearer = wrong & (t < distance)
        best[nearer], distance[nearer] = x1[nearer], t[nearer]
        x1 = np.where(wrong[:, None], x0 + 0.9 * (x1 - x0), x1)
        path.append(x1.reshape(shape))
    return best.reshape(shape), distance, path


def value_and_grad(forward, loss):
    """Logits, loss(logits) (b,) and its gradient, as the transcriptions take them."""

    def both(x):
        logits, pull_back = jax.vjp(forward, x)
        values, pull_loss = jax.vjp(loss, logits)
        (d_logits,) = pull_loss(jnp.ones_like(values))
        return logits, values, pull_back(d_logits)[0]

    return both
