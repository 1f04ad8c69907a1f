"""Compiles an OCI seccomp profile to the BPF program that the launcher's children load. Runs in the agent."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Mapping
from typing import Any, Final

import pyseccomp

from .errors import RuntimeRejected

_EPERM: Final = 1
_UNKNOWN: Final = -1
#: Calls that libseccomp 2.5.4 (Debian 12) does not know by name; numbers since 424 are the same on every architecture.
_NEWER_CALLS: Final = {"mseal": 462, "setxattrat": 463, "getxattrat": 464, "listxattrat": 465, "removexattrat": 466}
_OPERATORS: Final = {
    "SCMP_CMP_NE": pyseccomp.NE,
    "SCMP_CMP_LT": pyseccomp.LT,
    "SCMP_CMP_LE": pyseccomp.LE,
    "SCMP_CMP_EQ": pyseccomp.EQ,
    "SCMP_CMP_GE": pyseccomp.GE,
    "SCMP_CMP_GT": pyseccomp.GT,
}
#: libseccomp's SCMP_FLTATR_CTL_OPTIMIZE = 2 sorts the rules into a binary tree: 9 comparisons and not 300 for a call,
#: and as many fewer steps when the kernel tries every call number at load time.
_OPTIMIZE_TREE: Final = 2


def compile_profile(profile: Mapping[str, Any]) -> bytes:
    """Return the BPF program of a profile; calls that this machine does not have are left out, as runc does.

    Raises RuntimeRejected for actions and operators that are not supported.
    """
    return _compile(json.dumps(profile, sort_keys=True))


@functools.lru_cache(maxsize=32)
def _compile(text: str) -> bytes:
    profile = json.loads(text)
    rules = pyseccomp.SyscallFilter(_action(profile["defaultAction"], profile.get("defaultErrnoRet")))
    rules.set_attr(pyseccomp.Attr.CTL_NNP, 0)
    rules.set_attr(pyseccomp.Attr.CTL_OPTIMIZE, _OPTIMIZE_TREE)
    for entry in profile.get("syscalls", ()):
        action = _action(entry["action"], entry.get("errnoRet"))
        arguments = [_argument(argument) for argument in entry.get("args", ())]
        for name in entry["names"]:
            number = _NEWER_CALLS.get(name, pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name))
            if number != _UNKNOWN:
                rules.add_rule(action, number, *arguments)
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def _action(name: str, errno_return: int | None) -> int:
    match name:
        case "SCMP_ACT_ALLOW":
            return int(pyseccomp.ALLOW)
        case "SCMP_ACT_ERRNO":
            return int(pyseccomp.ERRNO(_EPERM if errno_return is None else errno_return))
        case "SCMP_ACT_KILL" | "SCMP_ACT_KILL_PROCESS":
            return int(pyseccomp.KILL_PROCESS)
        case "SCMP_ACT_LOG":
            return int(pyseccomp.LOG)
        case _:
            raise RuntimeRejected(f"seccomp: action {name!r} is not supported")


def _argument(argument: Mapping[str, Any]) -> Any:
    if argument["op"] == "SCMP_CMP_MASKED_EQ":
        return pyseccomp.Arg(argument["index"], pyseccomp.MASKED_EQ, argument["value"], argument["valueTwo"])
    if argument["op"] not in _OPERATORS:
        raise RuntimeRejected(f"seccomp: operator {argument['op']!r} is not supported")
    return pyseccomp.Arg(argument["index"], _OPERATORS[argument["op"]], argument["value"])
