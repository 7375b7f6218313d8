from pathlib import Path

import pytest
import yaml

from basekamp.cluster.arguments import typed_arguments
from basekamp.cluster.compiled import compiled_pipeline
from basekamp.cluster.package import check_image, image_of, read_package, with_image, without_caching
from basekamp.errors import InputError

DIGEST = "sha256:" + "0123456789abcdef" * 4
IMAGE = f"registry.example.com:5000/team/basekamp@{DIGEST}"


@pytest.mark.parametrize(
    "image",
    ["basekamp", "basekamp:dev", "team/base_kamp:1.0", "localhost/basekamp", "localhost:5000/a/b:c", "kind:5000/x:y"]
    + [IMAGE, f"ghcr.io/Basekamp.x/y:1@{DIGEST}".replace("Basekamp.x", "basekamp.x"), "GHCR.io/basekamp/x:V_1"],
)
def test_check_image_gives_reference_back(image: str) -> None:
    assert check_image(image) == image


@pytest.mark.parametrize(
    "image",
    ["", "not an image!", "Basekamp", "ghcr.io/Team/x", "x:", "x@sha256:abc", "x@md5:" + "0" * 32, "/x", "x/", "a//b"]
    + ["-x", "https://ghcr.io/x", "x:tag:tag", "x\n", "x:" + "t" * 129, "$(id)", "é", "a/" * 300 + "b"],
)
def test_check_image_other_text_refused(image: str) -> None:
    with pytest.raises(InputError, match="is not an image reference: write registry/name:tag"):
        check_image(image)


def test_with_image_replaces_every_image_and_nothing_else(tmp_path: Path) -> None:
    package = compiled_pipeline()
    copy = with_image(package, IMAGE, tmp_path / "new" / "folder")
    before, after = read_package(package), read_package(copy)
    executors = before[0]["deploymentSpec"]["executors"]
    assert len(executors) >= 4 and len(after) == len(before) == 2
    for executor in executors.values():
        executor["container"]["image"] = IMAGE
    assert after == before
    assert image_of(copy) == IMAGE != image_of(package)


def test_with_image_copy_compiles_to_the_same_arguments(tmp_path: Path) -> None:
    package = compiled_pipeline()
    values = {"experiment": "e", "source": "s", "target": "t", "metric": "m", "store": "s3://b"}
    assert typed_arguments(with_image(package, "x:1", tmp_path), values) == typed_arguments(package, values)


def test_with_image_copies_of_two_images_lie_side_by_side(tmp_path: Path) -> None:
    copies = [with_image(compiled_pipeline(), image, tmp_path) for image in ("x:1", "x:2", "x:1")]
    assert copies[0] == copies[2] != copies[1]
    assert sorted(tmp_path.iterdir()) == sorted(set(copies))


def test_with_image_malformed_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'not an image!' is not an image reference"):
        with_image(compiled_pipeline(), "not an image!", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_with_image_pipeline_without_container_refused(tmp_path: Path) -> None:
    package = tmp_path / "p.yaml"
    package.write_text("root: {dag: {}}\ndeploymentSpec: {executors: {exec-i: {importer: {}}}}\n")
    with pytest.raises(InputError, match="has no step that runs in a container"):
        with_image(package, "x:1", tmp_path)


def test_with_image_unwritable_folder_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written .*: choose another folder"):
        with_image(compiled_pipeline(), "x:1", tmp_path / "file")


def test_without_caching_turns_it_off_for_every_task(tmp_path: Path) -> None:
    package = tmp_path / "p.yaml"
    loop = {"dag": {"tasks": {"inner": {"cachingOptions": {"enableCache": True}}}}}
    root = {"dag": {"tasks": {"outer": {"cachingOptions": {"enableCache": True}, "taskInfo": {"name": "outer"}}}}}
    package.write_text(yaml.safe_dump({"root": root, "components": {"comp-loop": loop, "comp-step": {}}}))
    [copy] = read_package(without_caching(package, tmp_path))
    assert copy["root"]["dag"]["tasks"]["outer"] == {"cachingOptions": {}, "taskInfo": {"name": "outer"}}
    assert copy["components"]["comp-loop"]["dag"]["tasks"]["inner"] == {"cachingOptions": {}}
