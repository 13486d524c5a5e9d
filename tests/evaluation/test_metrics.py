import os
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest

from aligndistill.evaluation.calibration import preference_metrics
from aligndistill.evaluation.intervals import bootstrap_mean
from aligndistill.evaluation.metrics import load_metric, metric_path

NAMES = ["win_rate", "distinct_n", "repetition", "preference_accuracy"]

# Runs in a process of its own, in an empty folder, with an empty cache, and with sockets refused.
LOAD_EVERYTHING = """
import socket
def refuse(*arguments, **options):
    raise AssertionError("a metric went to the network")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
import evaluate
from aligndistill.evaluation.metrics import metric_path
texts = ["a b a b", "a b"]
print(evaluate.load(metric_path("win_rate")).compute(predictions=[1.0, 0.5, 0.0, 1.0])["win_rate"])
print(evaluate.load(metric_path("distinct_n")).compute(predictions=texts)["distinct_n"])
print(evaluate.load(metric_path("repetition")).compute(predictions=texts, ngram_size=1)["repetition"])
print(evaluate.load(metric_path("preference_accuracy")).compute(predictions=[2.0, 1.0], references=[1.0, 1.0])["accuracy"])
"""


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    """Metrics are copied and cached in a temporary folder, whatever the home directory holds."""
    cache = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.config, "HF_MODULES_CACHE", str(cache / "modules"))
        patch.setattr(evaluate.config, "HF_METRICS_CACHE", str(cache / "metrics"))
        patch.setattr(sys, "path", list(sys.path))
        yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "evaluate_modules"]:
        del sys.modules[name]


@pytest.mark.process
def test_evaluate_loads_them_from_anywhere_without_a_network(tmp_path):
    import aligndistill

    source = str(Path(aligndistill.__file__).parent.parent)
    environment = os.environ | {
        "HF_HOME": str(tmp_path / "home"),
        "HF_EVALUATE_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": source,
    }
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run = subprocess.run(
        [sys.executable, "-c", LOAD_EVERYTHING], cwd=elsewhere, env=environment, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert [float(line) for line in run.stdout.split()] == [0.625, 0.5, (0.5 + 0.0) / 2, 0.75]
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_metrics_describe_themselves(name):
    metric = load_metric(name)
    assert metric.name == name
    assert metric.description
    assert metric.citation
    assert "predictions" in metric.inputs_description


def test_win_rate_is_the_bootstrap_mean():
    wins = [1.0, 0.5, 0.0, 0.8, 0.9]
    expected = bootstrap_mean(wins, seed=3)
    output = load_metric("win_rate").compute(predictions=wins, seed=3)
    assert output == {"win_rate": expected.mean, "low": expected.low, "high": expected.high, "n": 5}


def test_batches_add_up():
    metric = load_metric("win_rate")
    metric.add_batch(predictions=[1.0, 0.0])
    metric.add_batch(predictions=[0.5])
    assert metric.compute()["n"] == 3


def test_win_rate_refuses_what_is_no_probability():
    with pytest.raises(ValueError, match=r"prediction 1 is 1\.2"):
        load_metric("win_rate").compute(predictions=[0.5, 1.2])


def test_preference_accuracy_is_preference_metrics():
    chosen, rejected, prompts = [1.0, 0.0, 3.0], [0.0, 1.0, 1.0], ["a", "a", "b"]
    expected = preference_metrics([1.0, -1.0, 2.0], [2, -1, 0], prompts)
    output = load_metric("preference_accuracy").compute(
        predictions=chosen, references=rejected, chosen_lengths=[5, 2, 7], rejected_lengths=[3, 3, 7], prompts=prompts
    )
    assert output["n"] == 2
    assert output["accuracy"] == expected.accuracy.mean == pytest.approx(2 / 3)
    assert output["accuracy_low"] == expected.accuracy.low
    assert output["ece"] == expected.ece.mean
    assert output["longer_wins"] == expected.longer_wins.mean == pytest.approx(1.5 / 3)


def test_preference_accuracy_without_lengths_says_nothing_of_them():
    assert "longer_wins" not in load_metric("preference_accuracy").compute(predictions=[1.0], references=[0.0])
    with pytest.raises(ValueError, match="both chosen_lengths and rejected_lengths"):
        load_metric("preference_accuracy").compute(predictions=[1.0], references=[0.0], chosen_lengths=[1])


def test_distinct_n_of_nothing_is_not_measured():
    assert load_metric("distinct_n").compute(predictions=["one"]) == {"distinct_n": None}


def test_unknown_metric():
    with pytest.raises(ValueError, match="no metric 'bleu'; the metrics are distinct_n, preference_accuracy"):
        metric_path("bleu")
