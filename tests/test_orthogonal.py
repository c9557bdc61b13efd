"""The maps against the original's values, finite differences and orthogonality."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from common import orthogonal
from tests.test_upstream_parity import deviation, each_mode, load

NAMES = ("gram_schmidt", "householder", "lowdin", "cayley")
MAPS = {name: getattr(orthogonal, name) for name in NAMES}
EPS = {"float32": float(np.finfo("float32").eps), "float64": float(np.finfo("float64").eps)}

each_map = pytest.mark.parametrize("name", MAPS)
each_dtype = pytest.mark.parametrize("dtype", EPS)


@functools.cache
def traced(function, jit: bool, gradient: bool = False):
    """Returns ``function``, or its value and gradients, as one `tf.function` for all tests."""

    def run(cotangent, *tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
            total = tf.reduce_sum(cotangent * value)
        return value, tape.gradient(total, tensors)

    return tf.function(run if gradient else function, jit_compile=jit)


def evaluate(function, *tensors, cotangent, jit: bool):
    """Returns function(*tensors) and the gradients of sum(cotangent * function(*tensors))."""
    run = traced(function, jit, gradient=True)
    value, gradients = run(*map(tf.constant, (cotangent, *tensors)))
    return value.numpy(), *(g.numpy() for g in gradients)


def condition(name: str, w: np.ndarray) -> float:
    """Returns the condition of the matrix that the map inverts: I - S for Cayley's, else w."""
    w = w.astype("float64")
    if name == "cayley":
        upper = np.triu(w)
        w = np.eye(len(w)) - (upper - upper.T)
    return np.linalg.cond(w)


def with_condition(n: int, kappa: float, seed: int = 0) -> np.ndarray:
    """Returns a float64 matrix with singular values from 1 to 1 / kappa, evenly in logarithm."""
    random = np.random.default_rng(seed)
    u, v = (np.linalg.qr(random.normal(size=(n, n)))[0] for _ in range(2))
    return u * np.geomspace(1, 1 / kappa, n) @ v


def assert_orthogonal(q: np.ndarray) -> None:
    n, eps = q.shape[-1], EPS[q.dtype.name]
    q = q.astype("float64")
    assert np.abs(np.swapaxes(q, -1, -2) @ q - np.eye(n)).max() <= 10 * n * eps


# Against the original


FILE = load("orthogonal_maps")
CASES = sorted({tuple(key.split("/")[:2]) for key in FILE})


@each_mode
@each_dtype
@pytest.mark.parametrize(("name", "n"), CASES)
def test_golden_values_and_gradients(name, n, dtype, jit):
    """float64: 1e-9. float32: n eps kappa, the normwise bound of a backward stable way to a
    solution whose sensitivity to relative changes of w is kappa, and of its derivative, which is
    larger by 1 / (smallest singular value) both in size and in error."""
    assert {name for name, _ in CASES} == set(MAPS)
    w, cotangent, output, gradient = (
        FILE[f"{name}/{n}/{key}"] for key in ("input", "cotangent", "output", "gradient")
    )
    tolerance = 1e-9 if dtype == "float64" else int(n) * EPS[dtype] * condition(name, w)
    actual = evaluate(MAPS[name], w.astype(dtype), cotangent=cotangent.astype(dtype), jit=jit)
    assert [a.dtype for a in actual] == [dtype, dtype]
    assert deviation(actual[0], output) <= tolerance
    assert deviation(actual[1], gradient) <= tolerance


# Orthogonality


@each_mode
@each_dtype
@pytest.mark.parametrize(
    "n", [5, 64, *(pytest.param(n, marks=pytest.mark.slow) for n in (576, 1024))]
)
@each_map
def test_orthogonal(name, n, dtype, jit):
    """At random rotations, and at large condition numbers: for Cayley's map, at large norms."""
    w = np.random.default_rng(n).normal(size=(n, n))
    matrices = [w, with_condition(n, 1e6)]
    if name == "cayley":
        w = np.triu(w)
        matrices += [w * norm / np.linalg.norm(w - w.T, 2) for norm in (1, 30, 1000)]
    for matrix in matrices:
        assert_orthogonal(traced(MAPS[name], jit)(matrix.astype(dtype)).numpy())


# The maps by their definitions


@each_mode
@pytest.mark.parametrize("n", [1, 2, 33])
def test_householder_is_the_product_of_its_reflections(n, jit):
    w = np.random.default_rng(n).normal(size=(n, n))
    a, q = w.copy(), np.eye(n)
    for k in range(n - 1):
        v = np.zeros(n)
        v[k:] = a[k:, k]
        v[k] -= np.linalg.norm(v[k:])
        reflection = np.eye(n) - 2 * np.outer(v, v) / (v @ v)
        a, q = reflection @ a, q @ reflection
    np.testing.assert_allclose(traced(orthogonal.householder, jit)(w), q, atol=1e-11)


@each_mode
@pytest.mark.parametrize("n", [4, 5])
def test_householder_at_the_identity_is_its_limit(n, jit):
    """The reflections divide by zero there, and at upper triangular matrices."""
    expected = np.diag([1.0] * (n - 1) + [(-1.0) ** (n - 1)])
    householder = traced(orthogonal.householder, jit)
    for w in (np.eye(n), np.triu(np.ones((n, n))), np.diag(np.arange(1.0, n + 1))):
        np.testing.assert_allclose(householder(w), expected, atol=1e-14)


@each_mode
@pytest.mark.parametrize("n", [5, *(pytest.param(n, marks=pytest.mark.slow) for n in (40, 130))])
def test_householders_determinant_whatever_is_special_about_the_matrix(n, jit):
    """Its factorization may leave out reflections, so the sign cannot be had by counting alone."""
    random = np.random.default_rng(0)
    flipped = np.eye(n)[::-1]
    matrices = [np.eye(n), -np.eye(n), flipped, np.triu(np.ones((n, n))), np.tri(n) @ flipped]
    matrices += [np.eye(n)[random.permutation(n)] * random.choice([-1, 1], n) for _ in range(20)]
    matrices += [np.diag(random.normal(size=n)), random.integers(-1, 2, (n, n))]
    matrices += [np.ones((n, n)), np.outer(*random.normal(size=(2, n))), np.zeros((n, n))]
    matrices += [w + 1e-2 * random.normal(size=(n, n)) / np.sqrt(n) for w in matrices[:25]]
    for dtype in EPS:
        for w in matrices:
            q = traced(orthogonal.householder, jit)(tf.constant(w, dtype)).numpy()
            assert_orthogonal(q)
            assert np.linalg.det(q) == pytest.approx((-1) ** (n - 1), rel=100 * n * EPS[dtype])


def test_cayley_reads_the_upper_triangle_alone():
    w = np.random.default_rng(0).normal(size=(6, 6))
    s = np.triu(w, 1) - np.triu(w, 1).T
    expected = (np.eye(6) + s) @ np.linalg.inv(np.eye(6) - s)
    np.testing.assert_allclose(orthogonal.cayley(w), expected, atol=1e-13)
    np.testing.assert_allclose(orthogonal.cayley(np.triu(w, 1)), expected, atol=1e-13)


# Gradients


def rotations(n: int = 6) -> dict[str, np.ndarray]:
    random = np.random.default_rng(5)
    noise = random.normal(size=(n, n))
    q = np.linalg.qr(noise)[0]
    return {
        "random": random.normal(size=(n, n)),
        "identity": np.eye(n),
        "diagonal": np.diag(np.linspace(-1.0, 2.0, n)),
        "nearly equal singular values": q + 1e-9 * noise,
        "identity with noise": np.eye(n) + 1e-6 * noise,
        "two equal singular values": q * np.array([1, 1, 2, 2, 3, 4.0]) @ np.linalg.qr(noise.T)[0],
        "ill-conditioned": with_condition(n, 30.0),
    }


def differences(function, w: np.ndarray, cotangent: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """Returns the gradient of sum(cotangent * function(w)) by differences of fourth order."""
    units = np.eye(w.size).reshape(w.size, *w.shape) * step
    weights = {1: 8, -1: -8, 2: -1, -2: 1}
    total = sum(
        c * np.sum(cotangent * function(w + k * units).numpy(), axis=(-2, -1))
        for k, c in weights.items()
    )
    return total.reshape(w.shape) / (12 * step)


@each_mode
@pytest.mark.parametrize("where", rotations())
@each_map
def test_gradient_against_finite_differences(name, where, jit):
    """Truncation, step^4 / (least singular value)^5, and rounding, eps / step, are below 1e-8."""
    w = rotations()[where]
    cotangent = np.random.default_rng(1).normal(size=w.shape)
    _, gradient = evaluate(MAPS[name], w, cotangent=cotangent, jit=jit)
    assert deviation(gradient, differences(MAPS[name], w, cotangent)) < 1e-7


@each_mode
@each_dtype
@each_map
def test_thin_product_is_the_map_times_the_neurons(name, dtype, jit):
    """Value and both gradients of the product against those of the map that is formed."""
    random = np.random.default_rng(2)
    w, f, g = (random.normal(size=shape).astype(dtype) for shape in ((20, 20), (20, 3), (20, 3)))
    thin = evaluate(lambda w, f: orthogonal.product(MAPS[name], w, f), w, f, cotangent=g, jit=jit)
    formed = evaluate(lambda w, f: MAPS[name](w) @ f, w, f, cotangent=g, jit=jit)
    for a, b in zip(thin, formed, strict=True):
        assert deviation(a, b) <= 20 * EPS[dtype] * condition(name, w)


@each_map
def test_products_of_eager_code_are_not_in_tf32(name, monkeypatch):
    """They are in float64, and so are those of the gradient."""
    matmul, seen = tf.matmul, []
    monkeypatch.setattr(tf, "matmul", lambda a, b: seen.append(a.dtype) or matmul(a, b))
    w, f = tf.eye(5), tf.ones((5, 3))
    with tf.GradientTape() as tape:
        tape.watch([w, f])
        value = orthogonal.product(lambda w: MAPS[name](w), w, f)
    forward = len(seen)
    gradients = tape.gradient(value, [w, f])
    assert len(seen) > forward > 0
    assert set(seen) == {tf.float64}
    assert {value.dtype, *(g.dtype for g in gradients)} == {tf.float32}


# Under XLA


@pytest.mark.slow
@each_map
def test_no_product_of_a_map_is_left_to_tf32(name):
    """Where TF32 is on, XLA may use it unless asked for full precision."""
    tf.config.experimental.enable_tensor_float_32_execution(True)
    w, f = tf.zeros((16, 16)), tf.zeros((16, 3))
    for function, exact in ((MAPS[name].product, True), (tf.matmul, False)):
        run = traced(function, jit=True, gradient=True)
        program = run.experimental_get_compiler_ir(f, w, f)(stage="hlo")
        dots = [line for line in program.splitlines() if " dot(" in line]
        assert dots
        assert all(("operand_precision={highest,highest}" in line) == exact for line in dots)


@pytest.mark.slow
@each_map
def test_rows_of_full_kibibytes(name):
    """They are padded for speed; value and gradients are those without padding for any scale."""
    random = np.random.default_rng(0)
    w, f, cotangent = (random.normal(size=(1, 512, c)) for c in (512, 3, 3))
    scale = 1 if name == "cayley" else 2.0**-66  # which takes that for the identity
    actual = evaluate(MAPS[name].product, scale * w, f, cotangent=cotangent, jit=False)
    actual = actual[0], scale * actual[1], actual[2]
    plainly = MAPS[name].product
    while hasattr(plainly, "__wrapped__"):
        plainly = plainly.__wrapped__
    expected = evaluate(plainly, w, f, cotangent=cotangent, jit=False)
    tolerance = 512 * EPS["float64"] * condition(name, w[0])
    for a, b in zip(actual, expected, strict=True):
        assert deviation(a, b) <= tolerance


# Odd input


@each_mode
@each_map
def test_batches(name, jit):
    w = np.random.default_rng(3).normal(size=(2, 3, 8, 8))
    cotangent = np.random.default_rng(4).normal(size=w.shape)
    value, gradient = evaluate(MAPS[name], w, cotangent=cotangent, jit=jit)
    for i in np.ndindex(2, 3):
        single = evaluate(MAPS[name], w[i], cotangent=cotangent[i], jit=jit)
        assert deviation(value[i], single[0]) < 1e-12
        assert deviation(gradient[i], single[1]) < 1e-9


@each_mode
@each_map
def test_bfloat16_is_computed_in_float32(name, jit):
    w = tf.cast(np.random.default_rng(0).normal(size=(16, 16)), tf.bfloat16)
    function = traced(MAPS[name], jit)
    q, exact = function(w), function(tf.cast(w, tf.float32))
    assert q.dtype == tf.bfloat16
    np.testing.assert_array_equal(
        tf.cast(q, tf.float32), tf.cast(tf.cast(exact, tf.bfloat16), tf.float32)
    )


def extremes(n: int, dtype: str) -> dict[str, np.ndarray]:
    """Returns matrices at which squares overflow or underflow, digits are lost or w is singular."""
    random = np.random.default_rng(n)
    noise, (u, v) = random.normal(size=(n, n)), np.linalg.qr(random.normal(size=(2, n, n)))[0]
    largest, least = (float(x) for x in (np.finfo(dtype).max, np.finfo(dtype).tiny))
    root = least**0.5
    grades = np.geomspace(root, 1 / root, n)
    return {
        "largest numbers": noise / np.abs(noise).max() * largest,
        "least numbers": noise * least,
        "squares overflow": noise / root,
        "squares underflow": noise * root,
        "graded rows": grades[:, np.newaxis] * noise,
        "graded columns": noise * grades[::-1],
        "graded rows of rank one": np.outer(random.normal(size=n), grades**0.5),
        "identity with noise whose squares underflow": np.eye(n) + root * noise,
        "condition 1e8": u * np.geomspace(1, 1e-8, n) @ v,
        "row scales from 1e-6 to 1e6": np.geomspace(1e-6, 1e6, n)[:, np.newaxis] * noise,
        "equal entries": np.full((n, n), 0.1),
        "upper triangle": np.triu(noise),
        "nilpotent": np.eye(n, k=1),
        "zero": np.zeros((n, n)),
        "one zero row": (np.arange(n) != 1)[:, np.newaxis] * noise,
        "one zero column": noise * (np.arange(n) != 1),
        "two equal rows": noise[[0, *range(n - 1)]],
    }


@pytest.mark.parametrize(
    ("n", "dtype", "jit"),
    [
        (8, "float32", False),
        (8, "float64", False),
        *(
            pytest.param(n, dtype, jit, marks=pytest.mark.slow)
            for jit, sizes in ((False, (3, 200)), (True, (3, 40)))
            for n in sizes
            for dtype in EPS
        ),
    ],
)
@each_map
def test_every_finite_matrix(name, n, dtype, jit):
    """Map and product agree and are orthogonal; gradients are finite, and 0 where promised."""
    random = np.random.default_rng(0)
    f, cotangent = (random.normal(size=(n, c)).astype(dtype) for c in (3, n))
    for where, w in extremes(n, dtype).items():
        w = w.astype(dtype)
        q, *gradients = evaluate(MAPS[name], w, cotangent=cotangent, jit=jit)
        k, *others = evaluate(MAPS[name].product, w, f, cotangent=cotangent[:, :3], jit=jit)
        assert all(np.isfinite(g).all() for g in (*gradients, *others)), where
        # of rows, columns or matrices of zeros
        zeros = ~w.any({"gram_schmidt": 1, "householder": 0}.get(name), keepdims=True)
        assert name == "cayley" or not (gradients[0] * zeros).any(), where
        assert_orthogonal(q)
        assert deviation(k, q @ f) <= 10 * n * EPS[dtype], where


def test_gradients_do_not_depend_on_exact_scales():
    """Those of maps that rows' or columns' scales leave as they are."""
    w, cotangent = np.random.default_rng(0).normal(size=(2, 9, 9))
    scales = 2.0 ** np.linspace(-400, 400, 9)
    for name, factor in (
        ("gram_schmidt", scales[:, np.newaxis]),
        ("householder", scales),
        ("lowdin", 2.0**-400),
    ):
        expected = evaluate(MAPS[name], w, cotangent=cotangent, jit=False)
        actual = evaluate(MAPS[name], factor * w, cotangent=cotangent, jit=False)
        np.testing.assert_array_equal(actual[0], expected[0])
        np.testing.assert_array_equal(factor * actual[1], expected[1])


@each_map
def test_what_is_no_square_float_matrix_is_refused(name):
    for bad in (np.ones((3, 4)), np.ones(3), np.ones((3, 3), "int32")):
        with pytest.raises(ValueError, match="a map takes"):
            MAPS[name](bad)


@each_map
def test_second_and_forward_mode_derivatives_raise(name):
    """They would leave out what the gradient takes as constant."""
    w, neurons = (tf.constant(np.random.default_rng(0).normal(size=(5, c))) for c in (5, 2))
    for call in (MAPS[name], lambda w: MAPS[name].product(w, neurons)):
        with tf.GradientTape() as outer:
            outer.watch(w)
            with tf.GradientTape() as inner:
                inner.watch(w)
                total = tf.reduce_sum(call(w))
            first = inner.gradient(total, w)
        with pytest.raises(NotImplementedError, match="neither second derivatives"):
            outer.gradient(first, w)
        with (
            pytest.raises(NotImplementedError, match="forward-mode"),
            tf.autodiff.ForwardAccumulator(w, w) as accumulator,
        ):
            accumulator.jvp(call(w))


@each_map
def test_vectorized_map(name):
    """Over matrices that Cayley's map treats in three ways, and a singular one for the others."""
    w = np.random.default_rng(0).normal(size=(4, 6, 6)).astype("float32")
    w *= np.array([1, 1e3, 1e12, 0], "float32")[:, np.newaxis, np.newaxis]

    def both(w):
        with tf.GradientTape() as tape:
            tape.watch(w)
            q = MAPS[name](w)
        return q, tape.gradient(q, w)

    values, gradients = tf.vectorized_map(both, tf.constant(w))
    for i in range(3):
        value, gradient = both(tf.constant(w[i]))
        np.testing.assert_allclose(values[i], value, atol=1e-5)
        np.testing.assert_allclose(gradients[i], gradient, rtol=1e-4, atol=1e-5)
    assert_orthogonal(values.numpy())
    assert np.isfinite(gradients).all()
