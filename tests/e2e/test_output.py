"""What programs write arrives as they wrote it: through `run` and `logs`, also while a log is rotated."""

import random
import re
import signal
import subprocess
import threading

import pytest

from tests.e2e.dev_cluster import ARGOSY, wait_until

MANY = 200_000
NUMBERS = b"".join(b"%d\n" % number for number in range(1, MANY + 1))
LINE_BYTES = 110
BURST = 75_000
"""Lines of 8 MB: most of a file of a log."""
BURSTS = """
services:
  bursts:
    image: busybox:1
    command:
      - sh
      - -c
      - |
        mkfifo /var/tmp/go; n=0; echo ready
        while read lines < /var/tmp/go; do
          awk -v from=$$n -v count=$$lines 'BEGIN {for (i = from; i < from + count; i++) printf "%09d %099d\\n", i, 0}'
          n=$$((n + lines))
        done
"""


def run(cluster, *args, stdin=b""):
    """Run `argosy run ARGS` with bytes in and out; return the finished process."""
    return subprocess.run(
        [ARGOSY, "run", *args], env=cluster.environment, capture_output=True, timeout=100, input=stdin, check=False
    )


def states(cluster):
    """Return the service and the state of all tasks."""
    return [(task["service"], task["state"]) for task in cluster.tasks(ended=True)]


def differs_at(one, other):
    """Return where two byte strings begin to differ, and their lengths: a message for people."""
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return f"the same up to {same}, of {len(one)} and {len(other)} bytes: {one[same : same + 50]!r}"


@pytest.mark.timeout(300)
def test_what_is_fed_comes_back_byte_for_byte_five_times_in_a_row(cluster):
    """It did not once of five: the program slept in a write to a pipe that nobody read any more."""
    sent = random.Random(1).randbytes(3 * 2**20)
    for _ in range(5):
        done = run(cluster, "-i", "busybox:1", "cat", stdin=sent)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == sent, differs_at(done.stdout, sent)


def test_nothing_is_added_to_what_was_written(cluster):
    written = run(cluster, "busybox:1", "sh", "-c", r"printf 'a\n\nb'; printf 'c\0\r' >&2")
    assert (written.returncode, written.stdout, written.stderr) == (0, b"a\n\nb", b"c\0\r")


def test_many_lines_arrive_whole_and_in_order(cluster):
    done = run(cluster, "--no-rm", "--name", "many", "busybox:1", "seq", "1", str(MANY))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == NUMBERS, differs_at(done.stdout, NUMBERS)
    logged = cluster.argosy("logs", "--no-prefix", "many").encode()
    assert logged == NUMBERS, differs_at(logged, NUMBERS)
    last = cluster.argosy("logs", "--no-prefix", "--tail", "1234", "many").splitlines()
    assert last == [str(number) for number in range(MANY - 1233, MANY + 1)]
    cluster.argosy("service", "rm", "many")


def test_an_unfinished_line_is_seen_at_once_by_run_and_at_its_end_by_logs(cluster):
    script = "printf 'a question? '; read answer; echo $answer; printf end"
    command = [ARGOSY, "run", "-i", "--no-rm", "--name", "asks", "busybox:1", "sh", "-c", script]
    with subprocess.Popen(command, env=cluster.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as asking:
        try:
            assert asking.stdout.read(12) == b"a question? "
            out, _ = asking.communicate(b"an answer\n", timeout=60)
        finally:
            asking.kill()
    assert out == b"an answer\nend"
    assert cluster.argosy("logs", "--no-prefix", "asks") == "a question? an answer\nend"
    cluster.argosy("service", "rm", "asks")


def test_output_that_nobody_took_in_time_is_told_and_is_no_success(cluster):
    """The log keeps 30 MB, and a program is not stopped because somebody reads slowly."""
    script = f"awk 'BEGIN {{for (i = 0; i < {12 * BURST}; i++) printf \"%09d %099d\\n\", i, 0}}'"
    command = [ARGOSY, "run", "--no-rm", "--name", "fast", "busybox:1", "sh", "-c", script]
    with subprocess.Popen(command, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        try:
            wait_until(lambda: ("fast", "COMPLETE") in states(cluster), 90, lambda: f"its end: {states(cluster)}")
            out, said = running.communicate(timeout=60)
        finally:
            running.kill()
    assert re.fullmatch(rb"fast: [\d,]+ bytes of its log were rotated away before they were read\n", said), said
    assert running.returncode == 1
    assert len(out) < 12 * BURST * LINE_BYTES
    assert out.endswith(b"%09d %099d\n" % (12 * BURST - 1, 0)), "the newest is there"
    cluster.argosy("service", "rm", "fast")


class Follower:
    """`argosy logs -f`: the numbers of the lines that it has printed, and its notices."""

    def __init__(self, cluster, service):
        command = [ARGOSY, "logs", "-f", "--no-prefix", service]
        self.process = subprocess.Popen(
            command, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.numbers, self.notices, self.cut = [], [], []
        self._readers = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._number)),
            threading.Thread(target=self._read, args=(self.process.stderr, self.notices.append)),
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream, take):
        for line in stream:
            take(line)

    def _number(self, line):
        if line != "ready\n":
            if len(line) == LINE_BYTES:
                self.numbers.append(int(line[:9]))
            else:
                self.cut.append(line)

    def reaches(self, number, timeout=60):
        """Wait until a line has been printed."""
        wait_until(
            lambda: self.numbers[-1:] == [number],
            timeout,
            lambda: f"line {number}, got to {self.numbers[-1:]}, {self.notices}, exit {self.process.poll()}",
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        for reader in self._readers:
            reader.join()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.mark.timeout(300)
def test_a_log_that_is_rotated_while_it_is_followed(cluster, tmp_path):
    """Without loss where the files are still there; where they are not, how much is missing is said."""
    cluster.deploy("rot", BURSTS, tmp_path)
    (task,) = cluster.wait_running("rot_bursts", 1)
    wait_until(lambda: "ready" in cluster.argosy("logs", "rot_bursts"), 30, "the program waits")

    def write(lines):
        cluster.inside(task, "sh", "-c", f"echo {lines} > /var/tmp/go")

    with Follower(cluster, "rot_bursts") as follower:
        for burst in range(1, 7):  # 60 MB of log, of which 30 are kept
            write(BURST)
            follower.reaches(burst * BURST - 1)
        assert follower.numbers == list(range(6 * BURST))
        assert not follower.notices + follower.cut
        follower.process.send_signal(signal.SIGSTOP)
        total = 14 * BURST
        write(8 * BURST)
        newest = ("logs", "--no-prefix", "--tail", "1", "rot_bursts")
        wait_until(lambda: cluster.argosy(*newest)[:9] == f"{total - 1:09}", 60, "all is written")
        follower.process.send_signal(signal.SIGCONT)
        follower.reaches(total - 1)
        assert follower.numbers == sorted(set(follower.numbers))
        missing = total - len(follower.numbers)
        assert missing > BURST
        assert len(follower.cut) <= 2, "what of the lines at the gap's ends was there"
        (notice,) = follower.notices
        told = re.fullmatch(
            r"rot_bursts\.1: ([\d,]+) bytes of its log were rotated away before they were read\n", notice
        )
        assert told, notice
        # A record has 40 bytes before the line; a line that was read in two pieces has two records.
        least, most = (missing - 2) * (LINE_BYTES + 40), missing * (LINE_BYTES + 45)
        assert least <= int(told[1].replace(",", "")) <= most
    cluster.argosy("stack", "rm", "rot")


def test_logs_of_all_parts_tell_of_no_bug(cluster):
    for path in sorted((cluster.run_dir / "logs").glob("[ac]*.log")):
        text = path.read_text(errors="replace")
        assert "Traceback" not in text, path
        assert "already running" not in text, path
