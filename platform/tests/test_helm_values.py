"""What a team writes, and what reaches its code server and its run pods."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from forge_platform.errors import ConfigurationError
from forge_platform.helm_values import (
    KEPT,
    SUBCHART,
    container_context,
    main,
    merge,
    release_values,
    render,
)

CHART_VALUES = Path(__file__).parents[2] / "helm" / "code-location" / "values.yaml"
DEFAULTS = yaml.safe_load(CHART_VALUES.read_text())
TEAM = {
    "location": "orders",
    "image": {"repository": "registry.example/orders", "tag": "1.2.3"},
    "env": {"EVERYWHERE": "both", "REPLACED": "by neither"},
    "secrets": ["lake"],
    "server": {"env": {"ONLY_SERVER": True}, "secrets": ["for-server"], "labels": {"a": "server"}},
    "run": {
        "env": {"ONLY_RUN": 7, "TOKEN": {"secretKeyRef": {"name": "api", "key": "token"}}},
        "secrets": ["for-run"],
        "resources": {"limits": {"memory": "4Gi"}},
        "nodeSelector": {"pool": "batch"},
        "ttlSecondsAfterFinished": 60,
    },
}


def values(*maps: dict[str, Any]) -> dict[str, Any]:
    return dict(release_values([DEFAULTS, TEAM, *maps]))


def deployment(found: dict[str, Any]) -> dict[str, Any]:
    (one,) = found[SUBCHART]["deployments"]
    return dict(one)


def names(entries: list[dict[str, Any]]) -> set[str]:
    return {entry["name"] for entry in entries}


def test_maps_are_merged_and_all_else_is_replaced() -> None:
    base = {"a": {"b": 1, "c": 2}, "list": [1, 2], "gone": 3}
    over = {"a": {"c": 4, "d": 5}, "list": [6], "gone": None}
    assert merge(base, over) == {"a": {"b": 1, "c": 4, "d": 5}, "list": [6]}
    assert base == {"a": {"b": 1, "c": 2}, "list": [1, 2], "gone": 3}


def test_an_environment_changes_one_variable_and_keeps_the_others() -> None:
    found = values({"env": {"REPLACED": "prod"}, "server": {"env": {"MORE": "1"}}})
    env = {entry["name"]: entry.get("value") for entry in deployment(found)["env"]}
    assert env["EVERYWHERE"] == "both"
    assert env["REPLACED"] == "prod"
    assert env["ONLY_SERVER"] == "true"
    assert env["MORE"] == "1"


def test_what_is_for_the_server_does_not_reach_a_run_and_the_reverse() -> None:
    found = values()
    server, run = deployment(found), container_context(found)["k8s"]
    both = {"EVERYWHERE", "REPLACED"}
    context = "DAGSTER_CLI_API_GRPC_CONTAINER_CONTEXT"
    assert names(server["env"]) == {*both, "ONLY_SERVER", context}
    assert names(run["env"]) == {*both, "ONLY_RUN", "TOKEN"}
    assert names(server["envSecrets"]) == {"lake", "for-server"}
    assert run["env_secrets"] == ["lake", "for-run"]
    assert "labels" not in run
    assert "limits" in server["resources"]
    assert server["resources"] != run["resources"] == {"limits": {"memory": "4Gi"}}
    assert server["nodeSelector"] == {}
    assert not server["includeConfigInLaunchedRuns"]["enabled"]


def test_the_server_hands_the_context_of_its_runs_to_dagster() -> None:
    """As the kubelet gives it to the server: it makes one of two dollars."""
    found = values({"run": {"env": {"URI": "https://$(TOKEN)@$$(literal)"}}})
    given = next(entry for entry in deployment(found)["env"] if entry["name"].startswith("DAGSTER"))
    assert "$(" not in given["value"].replace("$$", "")
    assert json.loads(given["value"].replace("$$", "$")) == container_context(found)


def test_a_text_can_name_a_secret_and_a_text_before_it_in_the_alphabet() -> None:
    """Kubernetes puts in what comes before it."""
    password = {"secretKeyRef": {"name": "lake", "key": "password"}}
    found = values(
        {"env": {"CATALOG": "postgresql://lake:$(PASSWORD)@$(ADDRESS)"}},
        {"env": {"PASSWORD": password, "ADDRESS": "db"}},
    )
    for env in (deployment(found)["env"], container_context(found)["k8s"]["env"]):
        order = [entry["name"] for entry in env]
        assert order.index("PASSWORD") < order.index("ADDRESS") < order.index("CATALOG")


def test_what_the_command_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dagster_k8s.container_context", None)
    with pytest.raises(ConfigurationError, match=r"install forge-platform\[instance\]"):
        values()


def test_the_launcher_understands_the_context() -> None:
    from dagster_k8s.container_context import K8sContainerContext

    context = K8sContainerContext.create_from_config(container_context(values()))
    config = context.run_k8s_config
    assert config.pod_spec_config["node_selector"] == {"pool": "batch"}
    assert config.pod_spec_config["service_account_name"] == "orders"
    assert config.job_spec_config == {"ttl_seconds_after_finished": 60}
    assert config.container_config["resources"] == {"limits": {"memory": "4Gi"}}
    token = next(e for e in config.container_config["env"] if e["name"] == "TOKEN")
    assert token["value_from"]["secret_key_ref"] == {"name": "api", "key": "token"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"location": ""}, "Set location in"),
        ({"image": {"tag": "", "repository": ""}}, "image.repository, image.tag or image.digest"),
        ({"image": {"tag": "latest"}}, "names another image every day"),
        ({"image": {"tag": 1.10}}, "is read as the number 1.1: write it in quotes"),
    ],
)
def test_what_is_not_definite_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        values(change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run": {"tolerations": [{"kye": "a"}]}}, "kye"),
        ({"run": {"affinity": {"nodeAffinity": {"preferred": []}}}}, "preferred"),
        ({"run": {"env": {"A": {"secretKeyRef": {"naem": "s", "key": "k"}}}}}, "naem"),
        ({"run": {"resources": {"claims": [{"name": "gpu"}]}}}, "claims"),
        ({"image": {"pullSecrets": [{}]}}, "name"),
    ],
)
def test_what_the_launcher_would_refuse_for_every_run_is_refused_before(
    change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"(?s)could not be launched with.*{message}"):
        values(change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"server": None}, "server is empty: leave it out, or name its values"),
        ({"env": [{"name": "A", "value": "b"}]}, "env must be a map"),
        ({"run": {"nodeSelector": ["pool"]}}, "run.nodeSelector must be a map"),
        ({"secrets": {"name": "lake"}}, "secrets must be a list"),
        ({"platform": {"webserver": None}}, "platform.webserver is null"),
        ({"image": {"pullPolicy": None}}, "image.pullPolicy is null"),
        ({"caBundle": {"key": None}}, "caBundle.key is null"),
        ({"env": {"DAGSTER_PG_PASSWORD": "x"}}, "env.DAGSTER_PG_PASSWORD is set by the platform"),
        ({"server": {"env": {"DAGSTER_HOME": "/x"}}}, "server.env.DAGSTER_HOME is set by"),
        (
            {"run": {"env": {"DAGSTER_CLI_API_GRPC_CONTAINER_CONTEXT": "{}"}}},
            "run.env.DAGSTER_CLI_API_GRPC_CONTAINER_CONTEXT is set by",
        ),
        ({"run": {"resources": {"limits": {"memory": "8GB"}, "requests": {"memory": 1}}}}, "8GB"),
        ({"run": {"resources": {"requests": {"memory": "4097Mi"}}}}, "requests more memory than"),
    ],
)
def test_values_of_the_wrong_shape_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        values(change)


def test_what_a_team_sets_itself_wins_over_the_file_of_authorities() -> None:
    own = {"caBundle": {"configMap": "company"}, "server": {"env": {"PGSSLROOTCERT": "system"}}}
    found = values(own)
    env = {entry["name"]: entry.get("value") for entry in deployment(found)["env"]}
    assert env["PGSSLROOTCERT"] == "system"
    assert env["SSL_CERT_FILE"] == "/etc/open-forge/ca.crt"
    assert "SSL_CERT_FILE" not in names(deployment(values())["env"])


def test_null_removes_what_the_chart_or_the_team_has() -> None:
    removed = {
        "secrets": None,
        "env": {"REPLACED": None},
        "run": {"nodeSelector": None, "resources": None, "env": {"TOKEN": None}},
    }
    found = values(removed)
    context = container_context(found)["k8s"]
    assert context["env_secrets"] == ["for-run"]
    assert names(context["env"]) == {"EVERYWHERE", "ONLY_RUN"}
    assert "pod_spec_config" not in context["run_k8s_config"]


def test_a_time_that_a_team_gives_its_jobs_is_kept_by_the_registrar() -> None:
    raw = container_context(values())["k8s"]["run_k8s_config"]
    assert raw["job_metadata"] == {"annotations": {KEPT: "true"}}
    without = values({"run": {"ttlSecondsAfterFinished": None}})
    assert "job_metadata" not in container_context(without)["k8s"]["run_k8s_config"]


@pytest.mark.parametrize("text", ["y", "n", "on", "1e3", "123456789e12", "0o17", "2024-01-31"])
def test_a_text_stays_one_whoever_reads_it(text: str) -> None:
    assert f'"{text}"' in render(values({"env": {"TEXT": text}, "image": {"tag": text}}))


def test_a_digest_is_as_definite_as_a_tag() -> None:
    image = deployment(values({"image": {"tag": "", "digest": "sha256:1"}}))["image"]
    assert image["digest"] == "sha256:1"
    assert "tag" not in image


def test_the_command_merges_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    team, prod = tmp_path / "team.yaml", tmp_path / "prod.yaml"
    team.write_text(yaml.safe_dump(TEAM))
    prod.write_text("image: {tag: 2.0.0}\n")
    main([str(CHART_VALUES), str(team), str(prod), "--repository", "elsewhere/orders"])
    found = yaml.safe_load(capsys.readouterr().out)
    image = deployment(found)["image"]
    assert (image["repository"], image["tag"]) == ("elsewhere/orders", "2.0.0")


def test_a_file_that_is_no_map_is_named(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("- a list\n")
    with pytest.raises(SystemExit, match=r"wrong\.yaml must be a map"):
        main([str(wrong)])
    with pytest.raises(SystemExit, match=r"missing\.yaml cannot be read"):
        main([str(tmp_path / "missing.yaml")])
