"""The estimator: scikit-learn's own checks of it, and what its users do with it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import has_fit_parameter

from xpconv import nn
from xpconv.sklearn import ConvNetClassifier


@parametrize_with_checks([ConvNetClassifier(epochs=8, learning_rate=5e-3)])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:600], y[:600], X[600:900], y[600:900]


def quick(**options):
    return ConvNetClassifier(**{"epochs": 4, "image_shape": (8, 8), "random_state": 0, **options})


def test_it_learns_digits_as_rows_and_as_images(digits):
    X, y, X_test, y_test = digits
    rows = quick(epochs=10).fit(X, y)
    assert rows.score(X_test, y_test) > 0.85
    images = quick(epochs=10, image_shape=None).fit(X.reshape(-1, 8, 8), y)
    channels = quick(epochs=10, image_shape=None).fit(X.reshape(-1, 8, 8, 1), y)
    expected = rows.predict_proba(X_test)
    np.testing.assert_array_equal(images.predict_proba(X_test.reshape(-1, 8, 8)), expected)
    np.testing.assert_array_equal(channels.predict_proba(X_test.reshape(-1, 8, 8, 1)), expected)
    np.testing.assert_allclose(expected.sum(axis=1), 1)
    np.testing.assert_allclose(np.exp(rows.predict_log_proba(X_test)), expected)
    for fitted, given, said in (
        (rows, X_test.reshape(-1, 8, 8), r"rows of fea.*\n.*\n  X\.resh"),
        (images, X_test, "images"),
    ):
        with pytest.raises(ValueError, match=rf"^ConvNetClassifier: was fitted to {said}"):
            fitted.predict(given)
    assert len(rows.history_) == 10
    assert rows.history_[-1].loss < rows.history_[0].loss


def test_arguments_that_do_not_fit(digits):
    X, y, *_ = digits
    for outputs in (5, 15):
        with pytest.raises(ValueError, match=rf"an output for each class\.\n  10 classes · outputs \(N, {outputs}\)"):
            quick(model=nn.Sequential(nn.Flatten(), nn.Linear(None, outputs))).fit(X, y)
    with pytest.raises(ValueError, match=r"given: X of 5 axes"):
        quick().fit(X.reshape(-1, 4, 4, 4, 1), y)
    with pytest.warns(RuntimeWarning, match=r"(?s)channels first.*x \(N=1, H=1, W=8, C=8\).*exchange\.to_nhwc"):
        quick(image_shape=(1, 8, 8), epochs=1).fit(X, y)
    with pytest.raises(ValueError, match=r"image_shape must be \(H, W\) or \(H, W, C\)\.\n  given: image_shape=8"):
        quick(image_shape=8).fit(X, y)
    with pytest.raises(TypeError, match=r"(?s)^model: .*\n  model\(classes, channels\)"):
        quick(model=lambda classes, channels: nn.Flatten()).fit(X, y)


def test_channels_are_standardised_by_the_training_data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 5, 5, 2)) * [1, 100] + [0, 1000]
    net = ConvNetClassifier(epochs=1).fit(X, np.arange(40) % 2)
    np.testing.assert_allclose(net.mean_, X.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(net.scale_, X.std(axis=(0, 1, 2)), rtol=1e-5)


def test_it_works_in_pipelines_searches_and_cross_validation(digits):
    X, y, X_test, y_test = digits
    pipe = make_pipeline(StandardScaler(), quick(epochs=8))
    search = GridSearchCV(pipe, {"convnetclassifier__learning_rate": [3e-3, 1e-6]}, cv=2).fit(X, y)
    assert search.best_params_ == {"convnetclassifier__learning_rate": 3e-3}
    assert search.score(X_test, y_test) > 0.8
    assert cross_val_score(quick(epochs=2), X, y, cv=2).shape == (2,)


def test_it_survives_cloning_pickling_and_joblib(digits, tmp_path):
    import joblib

    X, y, X_test, _ = digits
    net = quick(epochs=1).fit(X, [f"digit {n}" for n in y])
    expected = net.predict(X_test)
    assert expected[0].startswith("digit ")
    joblib.dump(net, tmp_path / "net.joblib")
    for again in (pickle.loads(pickle.dumps(net)), joblib.load(tmp_path / "net.joblib"), clone(net)):
        if not hasattr(again, "net_"):
            again.fit(X, [f"digit {n}" for n in y])
        np.testing.assert_array_equal(again.predict(X_test), expected)


def test_the_seed_decides(digits):
    X, y, X_test, _ = digits
    one, same, other = (quick(epochs=1, random_state=seed).fit(X, y).predict_proba(X_test) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


def test_partial_fit_goes_on(digits):
    X, y, X_test, y_test = digits
    net = quick()
    for part in range(3):
        net.partial_fit(X[part * 200 : part * 200 + 200], y[part * 200 : part * 200 + 200], classes=range(10))
    first = net.score(X_test, y_test)
    for _ in range(4):
        net.partial_fit(X, y)
    assert net.score(X_test, y_test) > max(first, 0.85)
    assert [record.epoch for record in net.history_] == list(range(1, 8))
    with pytest.raises(ValueError, match="classes that were not there at the first call") as error:
        net.partial_fit(X[:2], [3, 11])
    assert "new: 11" in str(error.value)
    with pytest.raises(ValueError, match=r"fitted to examples of shape \(8, 8, 1\), not \(64, 8, 1\)"):
        net.partial_fit(np.ones((2, 64, 8)), [0, 1])
    with pytest.raises(ValueError, match="classes are those of the first call"):
        net.partial_fit(X[:2], [3, 4], classes=range(11))


def test_partial_fit_begins_with_a_call_that_is_right(digits):
    X, y, *_ = digits
    net = quick()
    with pytest.raises(ValueError, match="classes that were not there"):
        net.partial_fit(X[:20], y[:20], classes=[0, 1])
    assert not hasattr(net, "net_")
    assert list(net.partial_fit(X[:20], y[:20], classes=range(10)).classes_) == list(range(10))


def test_partial_fit_goes_on_after_pickling(digits):
    X, y, *_ = digits
    net = quick().partial_fit(X[:200], y[:200], classes=range(10))
    again = pickle.loads(pickle.dumps(net, protocol=5))
    parts = [each.partial_fit(X[200:400], y[200:400]).predict_proba(X) for each in (net, again)]
    np.testing.assert_array_equal(*parts)


def test_models_of_every_kind(digits):
    X, y, X_test, _ = digits
    own = nn.Sequential(nn.Flatten(), nn.Linear(None, 10))
    for model in ("lenet", own, nn.models.resnet20):
        net = quick(model=model, epochs=1).fit(X[:64], y[:64])
        assert net.predict_proba(X_test).shape == (300, 10)
    assert own[1].weight.value is None
    with pytest.raises(ValueError, match=r"no model is called 'alexnet'.\n  known: small, lenet"):
        quick(model="alexnet").fit(X, y)


def test_options_reach_the_training(digits):
    X, y, *_ = digits
    seen = []

    def augment(images, rng):
        seen.append(images.shape)
        return images

    options = {"learning_rate": 0.01, "weight_decay": 0.5, "clip_norm": 1.0}
    net = quick(epochs=2, batch_size=300, augment=augment, **options).fit(X, y)
    assert seen == 4 * [(300, 8, 8, 1)]
    assert {name: getattr(net._optimizer, name.replace("learning_rate", "lr")) for name in options} == options


def test_one_example_left_over_for_a_batch_norm_is_told(digits):
    X, y, *_ = digits
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm(8), nn.Linear(8, 10))
    with pytest.raises(ValueError, match=r"(?s)the last batch .* one example.*batches of 32\n.*batch size of 33"):
        quick(model=model).fit(X[:129], y[:129])
    assert len(quick(model=model, batch_size=33, epochs=1).fit(X[:129], y[:129]).history_) == 1


@pytest.mark.parametrize("backend", ["array_api_strict", "torch"])
def test_it_computes_on_the_backend_that_was_asked_for(digits, backend):
    pytest.importorskip(backend)
    X, y, X_test, _ = digits
    here, there = quick(epochs=1).fit(X[:64], y[:64]), quick(epochs=1, backend=backend).fit(X[:64], y[:64])
    assert type(there.net_.fc2.weight.value).__module__.startswith(backend)
    np.testing.assert_allclose(there.predict_proba(X_test), here.predict_proba(X_test), atol=1e-3)


def test_progress_is_shown_on_request(digits, capsys):
    X, y, *_ = digits
    quick(epochs=2).fit(X[:64], y[:64])
    assert capsys.readouterr().out == ""
    quick(epochs=2, verbose=True).fit(X[:64], y[:64])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["epoch", "1/2", "2/2"]


@pytest.mark.parametrize("image_shape", [(8, 9), (64,), (2, 2, 4, 4)])
def test_image_shapes_that_do_not_fit(digits, image_shape):
    X, y, *_ = digits
    with pytest.raises(ValueError, match="image_shape must be") as error:
        quick(image_shape=image_shape).fit(X, y)
    assert "64 features" in str(error.value)


def test_other_images_than_it_was_fitted_to():
    net = ConvNetClassifier(epochs=1).fit(np.ones((4, 6, 5)), [0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"fitted to examples of shape \(6, 5, 1\), not \(6, 4, 1\)"):
        net.predict(np.ones((4, 6, 4)))


def test_weights_of_examples_are_refused_with_what_to_do_instead():
    net, X, y = ConvNetClassifier(epochs=1), np.ones((4, 5)), [0, 1, 0, 1]
    with pytest.raises(TypeError, match=r"not sample_weight\.\n.*np\.repeat\(X, counts, axis=0\)"):
        net.fit(X, y, sample_weight=[1, 2, 1, 2])
    with pytest.raises(TypeError, match="not weights"):
        net.fit(X, y, weights=1)
    assert not hasattr(net, "net_")
    assert not has_fit_parameter(net, "sample_weight"), "so that what wraps an estimator does not count on it"
