"""Removes a person, a photo or a face from everything the tool has made, and proves it.

`forget` of sort_faces.py loads this file. It finds out which faces go, which of our folders hold
something of them and what has to change there, and writes that down beside the cache before the
first change: a run that was cut short is finished by the same command. Then every file is looked
at for what is left.

    forget_traces     what tells of the forgotten, in words and in looks; changes of a folder
    forget_target     our folders, who is meant, which faces go
    forget_files      the cache, trees of photos, pages, plans, logs
    forget_decisions  what the operator has decided, what the review page has kept
    forget_copies     crops that were put outside all outputs
    forget_corpus     swap-ready corpora and their history
    forget_video      video work folders and clips
    forget_proof      the scan
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import sort_faces as sf

traces = sf.companion("forget_traces")
whom = sf.companion("forget_target")
files = sf.companion("forget_files")
said = sf.companion("forget_decisions")
copies = sf.companion("forget_copies")
corpora = sf.companion("forget_corpus")
videos = sf.companion("forget_video")
proof = sf.companion("forget_proof")
Place, Target, Words, Looks = traces.Place, traces.Target, traces.Words, traces.Looks
Scene = whom.Scene


class ForgetPlan(sf.OwnFile, tag="forget", kw_only=True):
    """What would be forgotten, to be looked at; faces taken out of it stay."""

    what: str
    asked: str
    outs: list[str]
    cache: str
    state: str
    faces: list[dict[str, Any]]
    places: list[dict[str, Any]]


def forget(
    paths: sf.ForgetPaths, asked: sf.ForgetOptions, how: sf.PlanOptions, crew: sf.Crew
) -> sf.Outcome:
    """Forget what is asked for, or what a plan or an interrupted run says, and prove it."""
    named = {key: getattr(asked, key) for key in ("person", "photo", "face") if getattr(asked, key)}
    if len(named) != (how.apply is None) and not (len(named) == 1 and how.apply):
        raise sf.SortFacesError("name one of --person, --photo and --face, or a plan with --apply")
    if asked.keep_out and asked.keep_out != named.get("person"):
        raise sf.SortFacesError(
            "--keep-out: keeps an embedding of the person; to agree say --keep-out with the very "
            "words of --person"
        )
    with whom.opened(paths, crew) as scene:
        target = find_target(scene, named, how)
        if asked.keep_out:
            target = msgspec.structs.replace(target, keep_out=True)
        work = Work.of(scene, target)
        counts, table = work.counts(), work.table()
        if how.dry_run or how.plan is not None:
            if how.plan is not None:
                sf.write_file(how.plan, work.plan())
            return sf.Outcome({**counts, "run": "none: only a plan", "changes": table})
        work.check_engine()
        work.carry_out()
        for root in scene.corpora:
            renew_exports(root)
        if how.apply is not None:
            how.apply.unlink(missing_ok=True)
        left = proof.prove(work)
        proof.write_report(paths.report or scene.beside(".forget-report.json"), work, left)
        scene.job.unlink()
    return sf.Outcome(
        {**counts, "changes": table, **left.summary(), "left": left.table()}, not left.findings
    )


def renew_exports(root: Path) -> None:
    """Write anew for other programs what showed somebody else, too."""
    path = root / "manifest.json"
    master = sf.read_if_sound(path, sf.SwapManifest)
    corpus = sf.Corpus(root, master) if master is not None else None
    if corpus is not None and corpus.exports:
        moves = sf.companion("consumers").repairs(corpus, corpus.repairs_by_hand())
        sf.carry_out(corpus, sf.Plan("bundle", {}, moves))


FINDERS = {
    "person": whom.person_target,
    "photo": whom.photo_target,
    "face": whom.face_target,
}


def find_target(scene: Scene, named: dict[str, str], how: sf.PlanOptions) -> Target:
    """What goes: as an interrupted run has noted it, as a plan says, or as asked."""
    if scene.job.exists():
        target = sf.read_file(scene.job, Target)
        if named and named != {target.what: target.asked}:
            earlier = f"--{target.what} {target.asked}"
            raise sf.SortFacesError(
                f"{scene.job}: forgetting {earlier} was interrupted; repeat that first"
            )
        return target
    plan = sf.read_file(how.apply, ForgetPlan) if how.apply is not None else None
    if plan is not None:
        if named and named != {plan.what: plan.asked}:
            raise sf.SortFacesError(f"{how.apply}: is a plan for --{plan.what} {plan.asked}")
        named = {plan.what: plan.asked}
    ((what, asked),) = named.items()
    found = FINDERS[what](scene, asked)
    if plan is not None:
        if plan.state != state_of(scene):
            raise sf.SortFacesError(
                f"{how.apply}: cache or outputs have changed; make the plan again"
            )
        wanted = {str(entry.get("face")) for entry in plan.faces}
        found = msgspec.structs.replace(found, faces=[f for f in found.faces if f in wanted])
        if what == "photo" and len(found.faces) < len(wanted):
            found = msgspec.structs.replace(found, photos=[])
    return whom.completed(scene, found)


def state_of(scene: Scene) -> str:
    """A hash of the cache and of all manifests: a plan is for one state."""
    digest = hashlib.sha256(repr((scene.cache.face_ids, scene.cache.file_sha256.tolist())).encode())
    for path in sorted(scene.kinds):
        corpus, tree = scene.corpora.get(path), scene.trees.get(path)
        digest.update(corpus.state().encode() if corpus else repr((path, tree)).encode())
    return digest.hexdigest()[:16]


@dataclass
class Work:
    """What has to change where."""

    scene: Scene
    target: Target
    words: Words
    looks: Looks
    places: list[Place]
    kept: sf.FaceCache  # what stays of the cache
    gone: said.Gone  # tells what decisions say of what goes
    gallery: Any  # looks at pictures
    refused: list[tuple[Place, Any]] = field(default_factory=list)  # changes that are not done

    @classmethod
    def of(cls, scene: Scene, target: Target) -> Work:
        """Find out what has to change; nothing is changed yet."""
        kept = whom.reduced_cache(scene.cache, target.faces, target.photos)
        words = Words(target, operators_words(scene, kept))
        looks = looks_of(scene, target, kept)
        scratch = scene.beside("").absolute().with_name(f"{sf.PART_PREFIX}forget")
        gallery = proof.Gallery(scene.crew, scene.cache.meta, scratch)
        work = cls(scene, target, words, looks, [], kept, said.Gone(target, kept), gallery)
        work.places = list(work.find())
        touched = {str(place.root) for place in work.places if place.changes}
        told = sorted(touched.union(target.touched))
        work.target = msgspec.structs.replace(target, touched=told)
        work.places += work.pages(told)
        work.mark_pictures()
        return work

    def find(self) -> Iterator[Place]:
        """Every place with its changes; those that hold nothing of it have none."""
        scene, target, words, looks = self.scene, self.target, self.words, self.looks
        cache = scene.paths.cache.absolute()
        here, shown = cache.parent, copies.Shown(scene.cache, target)
        noted = copies.places_noted(cache, scene.corpora)
        yield from copies.places(noted, shown)  # first: the journals, which know them, go later
        yield from files.sidecar_places(scene, target)  # while the cache knows their photos
        own = [*files.cache_changes(scene, target, words, looks)]
        own += said.decision_changes(cache, self.gone, words)
        yield Place(here, "cache", False, own)
        for place in noted:
            above = copies.copies.journal(place).parent
            yield Place(above, "journal", False, [*copies.journal_changes(place, shown)])
        for path in scene.of("swap"):
            yield Place(path, "corpus", True, corpora.corpus_changes(path, target, words, looks))
        for path in scene.of(*whom.TREES):
            yield Place(path, scene.kinds[path], True, files.tree_changes(scene, path, target))
        yield from videos.video_places(scene, target, words, looks)
        for folder in scene.note_folders():
            yield Place(folder, "notes", False, files.note_changes(folder, target, words))
        if sf.log_folder().is_dir():
            yield Place(sf.log_folder(), "logs", False, files.log_changes(words))

    def pages(self, touched: Sequence[str]) -> Iterator[Place]:
        """The pages about outputs in which something changes, or that show or name it."""
        for path in self.scene.of("report"):
            changes = files.page_changes(path, touched, self.words)
            thumbs = [*sorted(path.glob("thumbs/*/")), path / "thumbs"]
            yield Place(path, "pages", False, changes, [str(t.relative_to(path)) for t in thumbs])

    def mark_pictures(self) -> None:
        """Say of the operator's pictures in a set that goes which of them show the person."""
        every = ((place, at) for place in self.places for at in range(len(place.changes)))
        kept = [(place, at) for place, at in every if place.changes[at].look]
        if not kept or not len(self.looks.shown):
            return
        self.check_engine()
        for place, at in kept:
            path = place.root / place.changes[at].path
            self.gallery.add(f"{place.root}/{at}", sf.sha256_of_file(path), b"", path)
        shown = {
            file
            for sha, vectors in self.gallery.vectors()
            if vectors is not None and self.looks.alike(vectors, self.looks.proof).any()
            for file in self.gallery.files[sha]
        }
        for place, at in kept:
            if f"{place.root}/{at}" in shown:
                why = "is yours, and shows the person: to be deleted by you"
                place.changes[at] = replace(place.changes[at], why=why)
        self.gallery.clear()

    def check_engine(self) -> None:
        """Refuse before the first change what could not be proved after the last."""
        if not (self.target.is_person and len(self.looks.shown)):
            return
        own, made_with = self.gallery.crew.facts["meta"]["recognizer"], self.scene.cache.meta
        if own != made_with.recognizer:
            raise sf.SortFacesError(
                f"{self.scene.paths.cache}: made with another {made_with.model} recogniser; name "
                "its own with --model"
            )

    def carry_out(self) -> None:
        """Note what is to be done, write the tombstone, then do all changes."""
        sf.write_file(self.scene.job, self.target)
        write_tombstone(self.scene, self.target)
        self.refused = [(place, change) for place in self.places for change in place.refused()]
        for place in self.places:
            if place.kind == "clips":
                with sf.locked(place.root / sf.LOCK_NAME, f"clip folder {place.root}"):
                    place.carry_out()
            else:
                place.carry_out()

    def counts(self) -> dict[str, Any]:
        """What the result says in numbers."""
        target = self.target
        keep = sum(bool(change.to) for place in self.places for change in place.changes)
        return {
            "forget": f"{target.what} {target.asked}",
            "faces": len(target.faces),
            "photos": len(target.photos),
            "group_photos": len(target.boxes),
            "changes_to_make": sum(len(place.changes) for place in self.places),
            "only_copies": sum(c.only_copy for place in self.places for c in place.changes),
            "files_of_yours_kept": keep or None,
        }

    def table(self) -> list[dict[str, Any]]:
        """Changes counted by place, action and reason."""
        rows = Counter(
            (str(place.root), change.action, change.why + ", only copy" * change.only_copy)
            for place in self.places
            for change in place.changes
        )
        return [
            {"place": root, "action": action, "count": number, "why": why}
            for (root, action, why), number in rows.items()
        ]

    def plan(self) -> ForgetPlan:
        """The plan as a file."""
        cache, target = self.scene.cache, self.target
        faces = []
        for face in target.faces:
            row = cache.row_of_face.get(face)
            path = "" if row is None else str(cache.file_path[cache.face_file[row]])
            faces.append({"face": face, "photo": path})
        places = [
            {"place": str(place.root), "action": change.action, "path": change.path,
             "why": change.why, **({"to": change.to} if change.to else {}),
             **({"only_copy": True} if change.only_copy else {})}
            for place in self.places for change in place.changes
        ]  # fmt: skip
        return ForgetPlan(
            what=target.what, asked=target.asked, outs=self.scene.outs,
            cache=str(self.scene.paths.cache.absolute()), state=state_of(self.scene),
            faces=faces, places=places,
        )  # fmt: skip


def operators_words(scene: Scene, kept: sf.FaceCache) -> list[str]:
    """Paths the operator has chosen: the name of the forgotten in one of them tells nothing."""
    words = [path for paths in kept.paths for path in paths]
    words += [*scene.cache.meta.roots, *scene.outs, str(scene.paths.cache.absolute())]
    words += map(str, copies.folders(copies.places_noted(scene.paths.cache, scene.corpora)))
    for root in scene.of("videos"):
        films = videos.listed_videos(sf.VideoWork(root))
        words += [text for film in films for text in (film.path, Path(film.path).stem)]
    return words


def looks_of(scene: Scene, target: Target, kept: sf.FaceCache) -> Looks:
    """What the forgotten look like, and those who stay."""
    dim = scene.cache.meta.dim
    shown = np.array([sf.unpack_floats(text, (dim,)) for text in target.shown], np.float32)
    shown = shown.reshape(-1, dim)
    others = np.zeros((0, dim), np.float32)
    if target.is_person:
        groups = [
            *whom.other_groups(scene, target.owns),
            *whom.other_persons(scene, target.owns, shown),
        ]
        others = whom.directions(kept, groups)
    return Looks(scene.cache.meta.model, dim, shown, others, kept.unit, target.is_person)


def write_tombstone(scene: Scene, target: Target) -> None:
    """Note what `embed` must not bring back."""
    path = sf.tombstone_path(scene.paths.cache)
    old = sf.read_file(path, sf.Tombstone) if path.exists() else None
    stone = old or sf.Tombstone(salt=secrets.token_hex(16))
    photos = sorted({*stone.photos, *map(stone.mark, target.photos)})
    boxes = {name: list(some) for name, some in stone.boxes.items()}
    for sha, some in target.boxes.items():
        known = boxes.setdefault(stone.mark(sha), [])
        known += [box for box in some if box not in known]
    for name in photos:
        boxes.pop(name, None)
    kept_out = [*stone.kept_out]
    if target.keep_out:
        kept_out += [text for text in target.shown if text not in kept_out]
    fresh = msgspec.structs.replace(
        stone, photos=photos, boxes=boxes, kept_out=kept_out,
        recognizer=scene.cache.meta.recognizer,
    )  # fmt: skip
    if fresh != old:
        sf.write_file(path, fresh)
