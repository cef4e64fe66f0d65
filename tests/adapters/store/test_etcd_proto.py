"""The checked-in stubs are what protoc makes of our declarations, and the calls are those that are declared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bgpd.adapters.store import etcd, etcd_link
from bgpd.adapters.store.etcd_link import Method
from bgpd.adapters.store.proto import rpc_pb2 as rpc

pytestmark = pytest.mark.adapter

ROOT = Path(__file__).parents[3]
FOLDER = Path("bgpd/adapters/store/proto")


def test_the_stubs_are_what_protoc_makes_of_the_declarations(tmp_path):
    """Generating anew, by the command that rpc.proto documents, changes no byte."""
    (command,) = (
        line.removeprefix("//").split()
        for line in (ROOT / FOLDER / "rpc.proto").read_text().splitlines()
        if "grpc_tools" in line and "protoc" in line
    )
    arguments = [argument.replace("_out=.", f"_out={tmp_path}") for argument in command[1:]]

    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, timeout=60)

    made = {path.name: path.read_text() for path in (tmp_path / FOLDER).iterdir()}
    kept = {path.name: path.read_text() for path in (ROOT / FOLDER).glob("*_pb2.py*")}
    assert kept == made


def test_each_call_is_declared():
    """The path and the answer of each call that we make are those of a declared one."""
    declared = {
        f"/{service.full_name}/{method.name}": method.output_type.full_name
        for service in rpc.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    made = {
        method.path: method.response.DESCRIPTOR.full_name
        for module in (etcd, etcd_link)
        for method in vars(module).values()
        if isinstance(method, Method)
    }

    assert {path: declared.get(path) for path in made} == made
    assert 8 == len(made)
