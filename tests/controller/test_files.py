"""Configs and secrets on a leader with real loops and a real etcd: versions, who follows them, who gets them."""

import grpc
import pytest

from argosy.controller.changes.files import followed
from argosy.controller.secrets.keyring import Keyring
from argosy.core.codec import decode
from argosy.core.files import CONFIG_LIMIT_BYTES, Config, FileVersion, Secret
from argosy.core.service import Service
from argosy.proto.argosy.v1 import control_pb2 as pb
from argosy.proto.argosy.v1 import types_pb2
from tests.controller.harness import KEYS, a_service_spec, until

SECRET = b"not-for-anybody-8c1f"


async def refused(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call
    return refusal.value


async def put_config(controller, data: bytes, name: str = "conf") -> pb.CreateConfigResponse:
    return await controller.control.CreateConfig(pb.CreateConfigRequest(file=pb.NewFile(name=name, data=data)))


async def put_secret(controller, data: bytes = SECRET, name: str = "pass") -> pb.CreateSecretResponse:
    return await controller.control.CreateSecret(pb.CreateSecretRequest(file=pb.NewFile(name=name, data=data)))


def spec_with(name: str, *files: types_pb2.FileRef, **more) -> types_pb2.ServiceSpec:
    spec = a_service_spec(name, **more)
    spec.task.container.files.extend(files)
    return spec


CONF = types_pb2.FileRef(name="conf", target="/conf")
PASS = types_pb2.FileRef(secret=True, name="pass", target="pass")


async def web(controller, *files: types_pb2.FileRef) -> Service:
    await controller.add_image()
    request = pb.CreateServiceRequest(spec=spec_with("web", *files))
    return decode(await controller.control.CreateService(request), Service)


def present(controller, name: str = "web") -> Service:
    found = controller.cache.snapshot.by_name(Service, "default", name)
    assert found is not None
    return found


def numbers(service: Service) -> list[str]:
    return [ref.id.rpartition(".")[2] for ref in service.spec.task.container.files]


async def test_the_same_content_makes_no_version_and_another_makes_the_next(leader):
    assert (await put_config(leader, b"one")).config.number == 1
    again = await put_config(leader, b"one")
    assert (again.changed, again.config.number) == (False, 1)
    assert (await put_config(leader, b"two")).config.number == 2
    first = await put_secret(leader)
    assert (await put_secret(leader)).changed is False
    assert (await put_secret(leader, b"other")).secret.number == first.secret.number + 1


async def test_a_new_version_moves_its_services_and_no_others(leader):
    await put_config(leader, b"one")
    await put_secret(leader)
    service = await web(leader, CONF, PASS)
    other = await leader.create("other")
    assert list((await put_config(leader, b"two")).services) == ["web"]
    moved = await until(lambda: (s := present(leader)).revision == service.revision + 1 and s)
    assert numbers(moved) == ["2", "1"]
    assert present(leader, "other").revision == other.revision


async def test_what_a_leader_left_undone_the_next_one_finishes(controllers):
    first, second = await controllers("c1"), await controllers("c2")
    await first.lead()
    await put_config(first, b"one")
    service = await web(first, CONF)
    await first.resign()
    await put_config(first, b"two")
    assert present(first).revision == service.revision
    await second.lead()
    await until(lambda: numbers(present(second)) == ["2"])


async def test_a_rollback_stays_until_a_newer_version_comes(leader):
    await put_config(leader, b"one")
    await web(leader, CONF)
    await put_config(leader, b"two")
    await until(lambda: numbers(present(leader)) == ["2"])
    await leader.control.RollbackService(pb.RollbackServiceRequest(ref="web"))
    assert numbers(present(leader)) == ["1"]
    assert followed(leader.cache.snapshot, present(leader)) is None
    spec = types_pb2.ServiceSpec()
    spec.CopyFrom((await leader.control.GetService(pb.GetServiceRequest(ref="web"))).spec)
    spec.task.container.env.append("A=1")
    await leader.control.UpdateService(pb.UpdateServiceRequest(ref="web", spec=spec))
    assert numbers(present(leader)) == ["1"]
    await put_config(leader, b"three")
    await until(lambda: numbers(present(leader)) == ["3"])


async def test_a_rollback_to_a_revision_restores_the_version_of_each_file_that_it_had(leader, agents):
    agent = await agents(leader.address, obedient=True)
    await put_config(leader, b"c1")
    await put_secret(leader, b"s1")
    await web(leader, CONF, PASS)
    for put, has in (
        (put_config(leader, b"c2"), ["2", "1"]),
        (put_secret(leader, b"s2"), ["2", "2"]),
        (put_config(leader, b"c3"), ["3", "2"]),
    ):
        await put
        await until(lambda has=has: numbers(present(leader)) == has)
    assert present(leader).revision == 4
    for to, has in ((2, ["2", "1"]), (1, ["1", "1"]), (3, ["2", "2"])):
        await leader.control.RollbackService(pb.RollbackServiceRequest(ref="web", to_revision=to))
        assert numbers(present(leader)) == has
        wanted = {f"c{has[0]}".encode(), f"s{has[1]}".encode()}
        await until(lambda wanted=wanted: wanted <= contents(agent))
    assert followed(leader.cache.snapshot, present(leader)) is None


def contents(agent) -> set[bytes]:
    """Return what the files hold that a node has."""
    return {piece.data for key, piece in agent.pieces.items() if key.startswith(("config/", "secret/"))}


async def test_a_rollback_restores_files_whose_names_were_removed_since(leader, agents):
    agent = await agents(leader.address, obedient=True)
    await put_config(leader, b"one")
    await put_secret(leader)
    await web(leader, CONF, PASS)
    await put_config(leader, b"two")
    await until(lambda: numbers(present(leader)) == ["2", "1"])
    await leader.control.UpdateService(pb.UpdateServiceRequest(ref="web", spec=spec_with("web")))
    await leader.control.RemoveConfig(pb.RemoveConfigRequest(ref="conf"))
    await leader.control.RemoveSecret(pb.RemoveSecretRequest(ref="pass"))
    await until(lambda: not contents(agent))
    assert (await put_config(leader, b"another")).config.number == 1  # of the same name, and no other version of it
    for to, wanted in ((1, b"one"), (2, b"two")):
        await leader.control.RollbackService(pb.RollbackServiceRequest(ref="web", to_revision=to))
        await until(lambda wanted=wanted: contents(agent) >= {wanted, SECRET})
    assert followed(leader.cache.snapshot, present(leader)) is None
    error = await refused(
        leader.control.UpdateService(pb.UpdateServiceRequest(ref="web", spec=spec_with("web", PASS, replicas=2)))
    )
    assert "there is no secret 'pass'" in error.details()  # a deploy says a name, and finds what has it by then


async def test_a_change_before_the_leader_moved_a_service_takes_the_new_version(controllers):
    controller = await controllers()  # nobody leads: nothing is moved
    await put_config(controller, b"one")
    await web(controller, CONF)
    await put_config(controller, b"two")
    spec = types_pb2.ServiceSpec()
    spec.CopyFrom((await controller.control.GetService(pb.GetServiceRequest(ref="web"))).spec)
    spec.task.container.env.append("A=1")
    await controller.control.UpdateService(pb.UpdateServiceRequest(ref="web", spec=spec))
    assert numbers(present(controller)) == ["2"]


async def test_versions_go_when_no_revision_has_them_and_removed_names_with_the_last(leader):
    await put_config(leader, b"one")
    await put_config(leader, b"two")
    snap = leader.cache
    await until(lambda: [v.number for v in snap.snapshot.all(FileVersion)] == [2])
    service = await web(leader, CONF)
    error = await refused(leader.control.RemoveConfig(pb.RemoveConfigRequest(ref="conf")))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "config conf is used by web" in error.details()
    await put_config(leader, b"three")
    await until(lambda: numbers(present(leader)) == ["3"])
    kept = await leader.control.GetConfig(pb.GetConfigRequest(ref="conf", number=2))
    assert (kept.data, list(kept.versions), list(kept.services)) == (b"two", [2, 3], ["web"])
    await leader.control.RemoveService(pb.RemoveServiceRequest(ref="web"))
    await leader.control.RemoveConfig(pb.RemoveConfigRequest(ref="conf"))
    await until(lambda: leader.cache.snapshot.get(Service, service.meta.id) is None)
    await until(lambda: not snap.snapshot.all(FileVersion) and not snap.snapshot.all(Config))
    assert (await put_config(leader, b"new")).config.number == 1


async def test_what_cannot_be_is_refused(leader):
    error = await refused(put_config(leader, b"x" * (CONFIG_LIMIT_BYTES + 1), name="a b"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "1,024,001 bytes" in error.details()
    assert '"a b" is not a name' in error.details()
    assert "empty" in (await refused(put_secret(leader, b""))).details()
    await leader.add_image()
    error = await refused(leader.control.CreateService(pb.CreateServiceRequest(spec=spec_with("web", CONF))))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "argosy config create conf FILE" in error.details()


async def test_the_largest_config_can_be_stored(leader):
    await put_config(leader, b"x" * CONFIG_LIMIT_BYTES)
    assert (await leader.control.GetConfig(pb.GetConfigRequest(ref="conf"))).data == b"x" * CONFIG_LIMIT_BYTES


async def test_a_stack_is_applied_whole_or_not_at_all(leader):
    await leader.add_image()
    request = pb.ApplyStackRequest(
        stack="s",
        services=[spec_with("web", CONF, PASS)],
        configs=[pb.NewFile(name="conf", data=b"one")],
        secrets=[pb.NewFile(name="pass", data=SECRET)],
    )
    request.services.add().CopyFrom(spec_with("broken", image="nobody:1"))
    await refused(leader.control.ApplyStack(request))
    assert not leader.cache.snapshot.all(Config)
    del request.services[1]
    await leader.control.ApplyStack(request)
    revision = present(leader).revision
    assert not (await leader.control.ApplyStack(request)).changed_service_ids
    request.configs[0].data = b"two"
    assert len((await leader.control.ApplyStack(request)).changed_service_ids) == 1
    assert (numbers(present(leader)), present(leader).revision) == (["2", "1"], revision + 1)
    request.configs.add(name="big", data=b"x" * 1_000_000)
    request.configs.add(name="bigger", data=b"x" * 1_000_000)
    assert "argosy config create" in (await refused(leader.control.ApplyStack(request))).details()
    other = pb.ApplyStackRequest(stack="t", configs=[pb.NewFile(name="conf", data=b"mine")])
    assert (await refused(leader.control.ApplyStack(other))).code() is grpc.StatusCode.ALREADY_EXISTS
    gone = await leader.control.RemoveStack(pb.RemoveStackRequest(stack="s"))
    assert [c.name for c in (*gone.configs, *gone.secrets)] == ["conf", "pass"]
    assert not (await leader.control.ListSecrets(pb.ListSecretsRequest())).secrets


async def test_prune_takes_what_the_stack_no_longer_has(leader):
    await leader.add_image()
    request = pb.ApplyStackRequest(
        stack="s", services=[spec_with("web")], configs=[pb.NewFile(name="old", data=b"1")], prune=True
    )
    await leader.control.ApplyStack(request)
    del request.configs[:]
    await leader.control.ApplyStack(request)
    assert not (await leader.control.ListConfigs(pb.ListConfigsRequest())).configs


async def test_only_nodes_with_a_task_of_it_get_a_file_and_lose_it_with_the_last(leader, agents):
    one = await agents(leader.address, "n1", obedient=True)
    two = await agents(leader.address, "n2", obedient=True)
    await put_config(leader, b"one")
    await put_secret(leader)
    await web(leader, CONF, PASS)
    has, other = await until(lambda: next(((a, b) for a, b in ((one, two), (two, one)) if a.tasks()), None))
    found = {key.partition("/")[0]: piece for key, piece in has.pieces.items()}
    assert (found["config"].data, found["secret"].data) == (b"one", SECRET)
    assert not [key for key in other.pieces if key.startswith(("config/", "secret/"))]
    await leader.control.RemoveService(pb.RemoveServiceRequest(ref="web"))
    await until(lambda: not [key for key in has.pieces if key.startswith(("config/", "secret/"))])


async def test_a_secret_is_in_no_answer_no_watch_and_not_in_etcd(leader):
    await put_secret(leader)
    service = await web(leader, PASS)
    control = leader.control
    answers = [
        await control.GetSecret(pb.GetSecretRequest(ref="pass")),
        await control.ListSecrets(pb.ListSecretsRequest()),
        await control.GetService(pb.GetServiceRequest(ref=service.meta.id)),
        await control.ListServices(pb.ListServicesRequest()),
    ]
    watching = control.Watch(pb.WatchRequest())
    answers.append(await watching.read())
    watching.cancel()
    assert not any(SECRET in answer.SerializeToString() for answer in answers)
    assert len(leader.cache.snapshot.all(FileVersion)) == 1
    async for page in leader.store.list_pages():
        assert SECRET not in page.SerializeToString()
    error = await refused(control.Watch(pb.WatchRequest(kinds=[99])).read())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_without_the_key_nothing_is_written_and_tasks_say_why_they_wait(controllers, agents):
    locked = await controllers("c1", keys=Keyring())
    error = await refused(put_secret(locked))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "--secrets-key" in error.details()
    assert not locked.cache.snapshot.all(Secret)
    writer = await controllers("c2", keys=KEYS)
    await put_secret(writer)
    await locked.lead()
    agent = await agents(locked.address, obedient=True)
    await web(locked, PASS)
    secret = await until(lambda: next((p for k, p in agent.pieces.items() if k.startswith("secret/")), None))
    assert secret.data == b""
    assert "lacks the key" in secret.problem
