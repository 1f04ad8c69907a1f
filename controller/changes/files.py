"""Changes of configs and secrets: turns a request into store operations. Pure but for ids, time and encryption.

Which version a service runs is in its spec (`FileRef.id`), put there by `resolved`. What moves it:

- it is created, or changed in a way that names the file anew (a deploy): to the latest version;
- a newer version is created: the leader moves all services that use the file (`followed`, from loops/files.py);
- a rollback: to what that revision had. It stays there until a newer version is created *after* it.

"After" is decided by etcd's revisions and no clock: a version moves a service exactly when it was stored later than the
service's present revision. That is why every change that resolves a file also checks the file's record: of a new
version and a new revision at the same moment, the second is decided anew.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from argosy.controller.secrets.keyring import Keyring, binding_of
from argosy.controller.store import Claim, Op, Release, Snapshot, create, delete, update
from argosy.controller.store import check as check_unchanged
from argosy.core.errors import InvalidError, NotFoundError, PreconditionError
from argosy.core.files import (
    Config,
    FileVersion,
    NamedFile,
    NewFile,
    Sealed,
    Secret,
    file_name_problem,
    kind_name,
    size_problem,
    version_id,
)
from argosy.core.meta import Meta
from argosy.core.service import FileRef, Revision, Service, ServiceSpec

NewIds = Mapping[tuple[bool, str], str]
"""(secret, name) -> the version that the same request makes or finds the file to have."""

LARGEST_CHANGE_BYTES = 1_200_000
"""Of new content in one transaction: etcd takes requests of up to 1.5 MiB."""


def type_of(*, secret: bool) -> type[Config] | type[Secret]:
    """Return the stored type."""
    return Secret if secret else Config


# ---------------------------------------------------------------- versions


@dataclass(frozen=True, slots=True)
class Written:
    """A file after a request for it; `changed` False: it held that content already."""

    file: NamedFile
    changed: bool
    users: tuple[str, ...] = ()


def problems(new: NewFile, *, secret: bool) -> list[tuple[str, str]]:
    """Return what is wrong with a config or secret in itself, as (where, what)."""
    found = [("name", file_name_problem(new.name)), ("data", size_problem(len(new.data), secret=secret))]
    found.append(("labels", "a label needs a key" if "" in new.labels else None))
    return [(where, what) for where, what in found if what is not None]


def check(new: NewFile, *, secret: bool) -> None:
    """Refuse a config or secret that cannot be; all its problems at once."""
    wrong = problems(new, secret=secret)
    if wrong:
        name = new.name or "(without a name)"
        raise InvalidError(f"{kind_name(secret=secret)} {name} cannot be accepted", tuple(wrong))


def written(
    snap: Snapshot, project: str, new: NewFile, new_id: str, keys: Keyring, now: float, *, secret: bool
) -> tuple[list[Op], Written]:
    """Make content the latest version of a name; `new_id` is for a name that there is not yet."""
    kind = type_of(secret=secret)
    if secret and not keys.can_seal:
        keys.seal(b"", b"")  # refuses, and says why
    present = snap.by_name(kind, project, new.name)
    if present is None:
        meta = Meta(new_id, project, created_at=now, updated_at=now)
        file: NamedFile = kind(meta, new.name, dict(new.labels), 1, len(new.data))
        return [Claim(kind, project, new.name, new_id), create(file), create(_version(file, new, keys, now))], Written(
            file, True
        )
    labels = dict(new.labels) or present.labels
    users = tuple(sorted(s.spec.name for s in users_of(snap, present)))
    if _content(snap, present, keys) == new.data:
        if labels == present.labels:
            return [], Written(present, False, users)
        relabelled = replace(present, labels=labels, meta=replace(present.meta, updated_at=now))
        return [update(relabelled)], Written(relabelled, False, users)
    file = replace(
        present,
        labels=labels,
        number=present.number + 1,
        size=len(new.data),
        meta=replace(present.meta, updated_at=now),
    )
    return [update(file), create(_version(file, new, keys, now))], Written(file, True, users)


def _version(file: NamedFile, new: NewFile, keys: Keyring, now: float) -> FileVersion:
    project, number = file.meta.project, file.number
    secret = isinstance(file, Secret)
    return FileVersion(
        meta=Meta(version_id(file.meta.id, number), project, created_at=now, updated_at=now),
        file_id=file.meta.id,
        number=number,
        name=file.name,
        data=b"" if secret else new.data,
        sealed=keys.seal(new.data, binding_of(project, file.name, number)) if secret else Sealed(),
    )


def content_of(version: FileVersion, keys: Keyring) -> bytes:
    """Return what a version holds; PreconditionError where a secret's cannot be opened here."""
    if not version.sealed.key_id:
        return version.data
    return keys.open(version.sealed, binding_of(version.meta.project, version.name, version.number))


def _content(snap: Snapshot, file: NamedFile, keys: Keyring) -> bytes | None:
    """Return what the latest version holds; None where it cannot be read: what is given is another then."""
    latest = snap.get(FileVersion, version_id(file.meta.id, file.number))
    try:
        return content_of(latest, keys) if latest is not None else None
    except PreconditionError:
        return None


# ---------------------------------------------------------------- use


def users_of(snap: Snapshot, file: NamedFile) -> list[Service]:
    """Return the services whose present spec has a version of a file; not those that are being removed."""
    return [
        s
        for s in snap.all(Service, project=file.meta.project)
        if not s.removing and any(_file_id(ref) == file.meta.id for ref in s.spec.task.container.files)
    ]


def _file_id(ref: FileRef) -> str:
    return ref.id.rpartition(".")[0]


def resolved(
    snap: Snapshot, project: str, spec: ServiceSpec, new: NewIds, present: Service | None
) -> tuple[FileRef, ...]:
    """Return a spec's files with the versions put in; NotFoundError for unknown ones.

    `new`: those of the same request. A reference that has the very version which `present` has keeps it, so that
    changing something else does not undo a rollback; but not where the leader is about to move it on.
    """
    settled = present is not None and followed(snap, present) is None
    has = {(r.secret, r.name): r.id for r in present.spec.task.container.files} if present and settled else {}
    found = []
    for ref in spec.task.container.files:
        kept = has.get((ref.secret, ref.name), "")
        if ref.id and ref.id == kept:
            found.append(ref)
        elif (ref.secret, ref.name) in new:
            found.append(replace(ref, id=new[ref.secret, ref.name]))
        else:
            file = snap.by_name(type_of(secret=ref.secret), project, ref.name)
            if file is None:
                what = kind_name(secret=ref.secret)
                raise NotFoundError(
                    f"service {spec.name}: there is no {what} {ref.name!r}: "
                    f"make it with `argosy {what} create {ref.name} FILE`"
                )
            found.append(replace(ref, id=version_id(file.meta.id, file.number)))
    return tuple(found)


def checks(snap: Snapshot, spec: ServiceSpec) -> list[Op]:
    """Return the operations that let a resolved spec be stored only while its files are as they were read."""
    ops: dict[str, Op] = {}
    for ref in spec.task.container.files:
        file = snap.get(type_of(secret=ref.secret), _file_id(ref))
        if file is not None:
            ops[file.meta.id] = check_unchanged(file)
    return list(ops.values())


def followed(snap: Snapshot, service: Service) -> ServiceSpec | None:
    """Return the spec with the latest versions where newer ones were stored after its present revision; else None."""
    revision = next((r for r in snap.revisions_of_service(service.meta.id) if r.number == service.revision), None)
    if revision is None or service.removing:
        return None
    files = tuple(_newer(snap, ref, revision.meta.version) or ref for ref in service.spec.task.container.files)
    if files == service.spec.task.container.files:
        return None
    task = service.spec.task
    return replace(service.spec, task=replace(task, container=replace(task.container, files=files)))


def _newer(snap: Snapshot, ref: FileRef, since: int) -> FileRef | None:
    file = snap.get(type_of(secret=ref.secret), _file_id(ref))
    if file is None or file.removing:
        return None
    latest = snap.get(FileVersion, version_id(file.meta.id, file.number))
    if latest is None or latest.meta.version <= since or latest.meta.id == ref.id:
        return None
    return replace(ref, id=latest.meta.id)


# ---------------------------------------------------------------- removal


def removed(
    snap: Snapshot, file: NamedFile, now: float, leaving: frozenset[str] = frozenset()
) -> tuple[list[Op], NamedFile]:
    """Begin to remove a file; its name is free at once. PreconditionError while services use it.

    `leaving`: services that the same request removes. What earlier revisions may be rolled back to stays with them.
    """
    if file.removing:
        return [], file
    secret = isinstance(file, Secret)
    users = sorted(s.spec.name for s in users_of(snap, file) if s.meta.id not in leaving)
    if users:
        what = kind_name(secret=secret)
        raise PreconditionError(
            f"{what} {file.name} is used by {', '.join(users)}: remove these services, or take the {what} out of them, "
            "first"
        )
    gone = replace(file, removing=True, meta=replace(file.meta, updated_at=now))
    return [update(gone), Release(type(file), file.meta.project, file.name, file.meta.id)], gone


def unneeded(snap: Snapshot) -> list[list[Op]]:
    """Return the deletions that are due: versions that are not the latest and that no revision has, removed names.

    Safe beside whatever else is written: a version that is not the latest gets no new users but from revisions that
    have it, and those are in this snapshot.
    """
    if not snap.count(Config) and not snap.count(Secret):
        return []
    needed = {ref.id for r in snap.all(Revision) for ref in r.spec.task.container.files}
    groups: list[list[Op]] = []
    for file in files_of(snap):
        latest = "" if file.removing else version_id(file.meta.id, file.number)
        versions = snap.versions_of_file(file.meta.id)
        old = [v for v in versions if v.meta.id != latest and v.meta.id not in needed]
        groups += [[delete(v)] for v in old]
        if file.removing and len(old) == len(versions):
            groups.append([delete(file)])
    return groups


def files_of(snap: Snapshot, project: str | None = None) -> Sequence[NamedFile]:
    """Return all configs and secrets."""
    return (*snap.all(Config, project=project), *snap.all(Secret, project=project))


def check_amount(new: Iterable[NewFile]) -> None:
    """Refuse more new content than one transaction takes."""
    amount = sum(len(n.data) for n in new)
    if amount > LARGEST_CHANGE_BYTES:
        raise InvalidError(
            f"the new content of configs and secrets is {amount:,} bytes together, and one deploy can change "
            f"{LARGEST_CHANGE_BYTES:,}: make the large ones with `argosy config create`, and write 'external: true'"
        )
