"""A container sees only itself, and is nobody outside."""

# ruff: noqa: ASYNC240 - tests look at local files while nothing else runs in their loop

import os
from dataclasses import replace
from pathlib import Path

import pytest

from argosy.agent.runtime.errors import RuntimeRejected
from argosy.agent.runtime.oci_config import Bind, Tmpfs

from .conftest import ID_BASE, Host, eventually, sh


async def test_pid_1_is_its_own_and_no_host_process_is_seen(host: Host) -> None:
    _, lines = await host.run(sh("echo $$; ls -d /proc/[0-9]* | wc -l"))
    assert lines[0] == "1"
    assert int(lines[1]) <= 3


async def test_the_hostname_is_its_own(host: Host) -> None:
    _, lines = await host.run(sh("hostname", hostname="web-1"))
    assert lines == ["web-1"]
    _, lines = await host.run(sh("hostname"))
    assert lines != [os.uname().nodename]


async def test_only_loopback_and_it_is_up(host: Host) -> None:
    _, lines = await host.run(
        sh("ls /sys/class/net; cat /sys/class/net/lo/flags; ping -c 1 -W 2 127.0.0.1 >/dev/null && echo up")
    )
    assert lines == ["lo", "0x9", "up"]


async def test_no_host_mount_is_seen(host: Host) -> None:
    _, lines = await host.run(sh("cat /proc/self/mountinfo"))
    points = {line.split(" ")[4] for line in lines}
    assert "/" in points
    allowed = ("/", "/proc", "/sys", "/dev")
    assert all(point == "/" or point.startswith(allowed[1:]) for point in points), points
    assert not any(str(host.directory) in line for line in lines), "a host path shows in the container's mounts"


async def test_root_inside_is_nobody_outside(host: Host) -> None:
    container_id = await host.launch(sh("sleep 100"))
    state = next(state for state in await host.runtime.list() if state.id == container_id)
    status = Path(f"/proc/{state.pid}/status").read_text()
    uids = next(line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
    assert set(uids) == {str(ID_BASE)}
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    namespaces = ("pid", "mnt", "net", "uts", "ipc", "user", "cgroup")
    for name in namespaces:
        assert os.readlink(f"/proc/{state.pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"), name


async def test_files_of_the_image_are_roots_and_new_ones_are_mapped(host: Host) -> None:
    container_id = await host.launch(sh("stat -c %u:%g /bin/busybox; touch /srv/made; stat -c %u /srv/made; sleep 100"))
    await eventually(lambda: len(host.lines(container_id)) == 2, "output")
    assert host.lines(container_id) == ["0:0", "0"]
    made = host.directory / "state" / container_id / "upper/srv/made"
    assert made.stat().st_uid == ID_BASE


async def test_two_containers_with_other_ids_share_a_layer(host: Host) -> None:
    script = "stat -c %u /bin/busybox; echo changed > /srv/new; cat /srv/new; ls /srv; sleep 100"
    first = await host.launch(sh(script))
    second = await host.launch(replace(sh(script), id_base=ID_BASE + 65_536))
    await eventually(lambda: all(len(host.lines(one)) >= 4 for one in (first, second)), "output of both")
    assert host.lines(first) == host.lines(second) == ["0", "changed", "new", "noexec"]
    shared = Path(host.rootfs.layers_root)
    assert (shared / "top/srv/new").read_text() == "new\n"
    assert (shared / "base/bin/busybox").stat().st_uid == 0


async def test_masked_and_read_only_paths(host: Host) -> None:
    script = (
        "wc -c < /proc/keys; wc -c < /proc/timer_list; ls /sys/firmware | wc -l; "
        "echo 1 > /proc/sys/net/ipv4/ip_forward || echo refused; echo b > /proc/sysrq-trigger || echo refused; "
        "touch /sys/x || echo refused; umount /proc/keys || echo refused"
    )
    _, lines = await host.run(sh(script))
    assert [line for line in lines if line in ("0", "refused")] == ["0", "0", "0", *["refused"] * 4]


async def test_device_nodes_work_and_no_other_can_be_made(host: Host) -> None:
    script = (
        "head -c 4 /dev/zero | wc -c; echo x > /dev/null && echo null; echo x > /dev/full || echo full; "
        "mknod /tmp/disk b 254 0 || echo refused; ls /dev | tr '\\n' ' '"
    )
    _, lines = await host.run(replace(sh(script), cap_add=("MKNOD", "SYS_ADMIN")))
    assert "4" in lines
    assert "null" in lines
    assert "full" in lines
    assert "refused" in lines
    assert "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero " in lines


async def test_capabilities_are_reduced_and_can_be_chosen(host: Host) -> None:
    _, lines = await host.run(sh("grep -E 'Cap(Eff|Bnd)' /proc/self/status"))
    assert lines[0].split()[1] == lines[1].split()[1]
    default = int(lines[0].split()[1], 16)
    assert not default & (1 << 21), "CAP_SYS_ADMIN"
    assert not default & (1 << 12), "CAP_NET_ADMIN"
    assert bin(default).count("1") == 12
    _, lines = await host.run(replace(sh("grep CapEff /proc/self/status"), cap_drop=("ALL",), cap_add=("NET_ADMIN",)))
    assert int(lines[0].split()[1], 16) == 1 << 12
    _, lines = await host.run(replace(sh("grep CapEff /proc/self/status"), user="ann"))
    assert int(lines[0].split()[1], 16) == 0


async def test_namespaces_and_mounts_are_refused_by_the_filter(host: Host) -> None:
    _, lines = await host.run(sh("unshare -U true || echo refused; mount -t tmpfs x /tmp || echo refused"))
    assert lines.count("refused") == 2


async def test_read_only_root_with_tmpfs(host: Host) -> None:
    spec = replace(
        sh("touch /x || echo refused; touch /scratch/y && echo written; stat -c %a /scratch; df -k /scratch | tail -1"),
        read_only=True,
        tmpfs=(Tmpfs("/scratch", size_bytes=2**20, mode=0o700),),
    )
    _, lines = await host.run(spec)
    assert "refused" in lines
    assert "written" in lines
    assert "700" in lines
    assert any(" 1024 " in line for line in lines)


async def test_bind_mounts_keep_owners_and_modes(host: Host, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "given").write_text("given\n")
    os.chown(volume / "given", 1001, 1002)
    hosts = tmp_path / "hosts"
    hosts.write_text("10.0.0.1 db\n")
    spec = replace(
        sh("stat -c %u:%g /data/given; echo more > /data/made; echo x > /fixed/made || echo refused; cat /etc/hosts"),
        binds=(Bind(str(volume), "/data"), Bind(str(volume), "/fixed", read_only=True)),
        hosts_path=str(hosts),
    )
    _, lines = await host.run(spec)
    assert lines[0] == "1001:1002"
    assert "refused" in lines
    assert "10.0.0.1 db" in lines
    assert (volume / "made").stat().st_uid == 0


async def test_a_missing_bind_source_is_a_reason(host: Host) -> None:
    with pytest.raises(RuntimeRejected, match=r"No such file.*/no/such/place") as caught:
        await host.launch(replace(sh("true"), binds=(Bind("/no/such/place", "/data"),)))
    assert caught.value.step == "open the bind mounts"
    assert await host.runtime.list() == []


async def test_links_of_the_image_do_not_lead_out(host: Host, tmp_path: Path, layers_root: Path) -> None:
    """An image with /etc/resolv.conf as a link to an absolute host path gets its file inside its own root."""
    evil = layers_root / f"evil-{os.getpid()}"
    target = tmp_path / "outside"
    (evil / "etc").mkdir(parents=True)
    os.symlink(f"../../../../../../..{target}/resolv.conf", evil / "etc/resolv.conf")
    given = tmp_path / "resolv"
    given.write_text("nameserver 169.254.1.1\n")
    host.rootfs = replace(host.rootfs, layers=("base", evil.name))
    _, lines = await host.run(replace(sh("cat /etc/resolv.conf"), resolv_conf_path=str(given)))
    assert lines == ["nameserver 169.254.1.1"]
    assert not target.exists()


async def test_the_interpreter_is_not_left_inside(host: Host) -> None:
    container_id = await host.launch(sh("sleep 100"))
    state = next(state for state in await host.runtime.list() if state.id == container_id)
    maps = Path(f"/proc/{state.pid}/maps").read_text()
    assert "python" not in maps
    assert sorted(os.listdir(f"/proc/{state.pid}/fd")) == ["0", "1", "2"]
    assert Path(f"/proc/{state.pid}/environ").read_text().count("PYTHON") == 0


async def test_sysctls_of_its_own_only(host: Host) -> None:
    name = "net.ipv4.tcp_keepalive_time"
    _, lines = await host.run(sh(f"sysctl -n {name}", sysctls={name: "77"}))
    assert lines == ["77"]
    assert Path(f"/proc/sys/{name.replace('.', '/')}").read_text() != "77\n"
    with pytest.raises(RuntimeRejected, match="belongs to the whole host"):
        await host.launch(sh("true", sysctls={"kernel.panic": "1"}))


async def test_a_sysctl_that_the_kernel_hides_is_a_reason(host: Host) -> None:
    """Kernels before 6.8 show net.core.* in no network namespace of a user namespace; none has net.no.such."""
    _, lines = await host.run(sh("test -e /proc/sys/net/core/somaxconn && echo shown || echo hidden"))
    visible = {"shown": ["net.core.somaxconn"], "hidden": []}[lines[0]]
    for name in {"net.core.somaxconn", "net.no.such"} - set(visible):
        with pytest.raises(
            RuntimeRejected, match=rf"sysctl {name}: .*{os.uname().release}.*no such parameter"
        ) as caught:
            await host.launch(sh("true", sysctls={name: "77"}))
        assert caught.value.step == "set kernel parameters"
        assert ("6.8" in str(caught.value)) == name.startswith("net.core.")
    for name in visible:
        assert (await host.run(sh(f"sysctl -n {name}", sysctls={name: "77"})))[1] == ["77"]


async def test_low_ports_and_pings_need_no_capability(host: Host) -> None:
    listen = "nc -l -p 80 & until netstat -ltn | grep -c :80; do kill -0 $! || break; sleep 0.05; done"
    script = f"{listen}; cat /proc/sys/net/ipv4/ping_group_range"
    _, lines = await host.run(replace(sh(script), user="ann", cap_drop=("ALL",)))
    assert [line.split() for line in lines if line != "0"] == [["1"], ["0", "65535"]]
