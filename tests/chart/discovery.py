"""What an API server says of itself, as far as Helm asks: its version, its kinds, and that it checks fields itself."""

from typing import Any

Object = dict[str, Any]

# What `kubectl api-resources` would name, as far as a chart of ours could ask for it.
KINDS = {
    "v1": "ConfigMap Namespace PersistentVolumeClaim Pod Secret Service ServiceAccount",
    "apps/v1": "DaemonSet Deployment ReplicaSet StatefulSet",
    "batch/v1": "CronJob Job",
    "policy/v1": "PodDisruptionBudget",
    "networking.k8s.io/v1": "Ingress NetworkPolicy",
    "autoscaling/v2": "HorizontalPodAutoscaler",
    "rbac.authorization.k8s.io/v1": "ClusterRole ClusterRoleBinding Role RoleBinding",
    "monitoring.coreos.com/v1": "PodMonitor PrometheusRule ServiceMonitor",
    "keda.sh/v1alpha1": "ScaledObject TriggerAuthentication",
}
CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding"}


def plural(kind: str) -> str:
    lower = kind.lower()
    if lower.endswith("y"):
        return lower[:-1] + "ies"
    return lower + ("es" if lower.endswith("s") else "s")


PLURALS = {plural(kind): kind for kinds in KINDS.values() for kind in kinds.split()}


def discovery(version: str) -> dict[str, Object]:
    """The answers by path."""
    major, minor = version.split(".")[:2]
    named = [{"groupVersion": each, "version": each.split("/")[1]} for each in KINDS if "/" in each]
    groups = [
        {"name": each["groupVersion"].split("/")[0], "versions": [each], "preferredVersion": each} for each in named
    ]
    schemas = {_root(group).strip("/"): {"serverRelativeURL": f"/openapi/v3{_root(group)}"} for group in KINDS}
    return {
        "/version": {"major": major, "minor": minor, "gitVersion": f"v{version}", "platform": "linux/amd64"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
        "/openapi/v3": {"paths": schemas},
        **{_root(group): _resources(group) for group in KINDS},
        **{f"/openapi/v3{_root(group)}": _openapi(group) for group in KINDS},
    }


def _root(group: str) -> str:
    return f"/apis/{group}" if "/" in group else f"/api/{group}"


def _resources(group: str) -> Object:
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    resources = [
        {"name": plural(kind), "kind": kind, "namespaced": kind not in CLUSTER_WIDE, "verbs": verbs}
        for kind in KINDS[group].split()
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": resources}


def _openapi(group: str) -> Object:
    name, version = group.split("/") if "/" in group else ("", group)
    paths = {}
    for kind in KINDS[group].split():
        where = "" if kind in CLUSTER_WIDE else "namespaces/{namespace}/"
        named = {"group": name, "version": version, "kind": kind}
        checks = [{"name": "fieldValidation", "in": "query"}]
        patch = {"parameters": checks, "x-kubernetes-group-version-kind": named}
        paths[f"{_root(group)}/{where}{plural(kind)}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1"}, "paths": paths}
