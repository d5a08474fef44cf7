# Photos come and go, and views are as if all had been encoded together.
import logging

import pytest
import torch

from generators.session import Session
from models.efficient_lvsm import EfficientLVSM, tiny
from scenes.cameras import Cameras


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return EfficientLVSM(tiny()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def cameras(scene):
    return scene.cameras


@pytest.fixture(scope="module")
def photos(scene):
    return [scene.image(i) for i in range(len(scene))]


def begin(model, cameras, **options):
    session = Session(model, **options)
    session.set_frame(cameras)
    return session


def near(some, others):
    return all((a - b).abs().max() < 1e-5 for a, b in zip(some, others, strict=True))


def test_one_at_a_time_is_all_at_once(model, cameras, photos):
    together, apart = (begin(model, cameras, capacity=4) for _ in range(2))
    together.add_views(photos[:3], cameras[:3])
    for i in range(3):
        apart.add_views(photos[i : i + 1], cameras[i])
    assert near(together.render(cameras[3:6]), apart.render(cameras[3:6]))


def test_a_removed_photo_was_never_there(model, cameras, photos):
    session, other = (begin(model, cameras, capacity=4) for _ in range(2))
    ids = session.add_views(photos[:3], cameras[:3])
    session.remove(ids[1:2])
    other.add_views([photos[0], photos[2]], cameras[[0, 2]])
    assert session.views == (ids[0], ids[2])
    assert near(session.render(cameras[3:5]), other.render(cameras[3:5]))
    assert session.add_views(photos[1:2], cameras[1]) == [3]  # an id is never used again


def test_the_cache_is_never_copied(model, cameras, photos):
    session = begin(model, cameras, capacity=3)
    places = set()
    for i in range(3):
        session.add_views(photos[i : i + 1], cameras[i])
        session.render(cameras[4:5])
        places.add(tuple(cache.keys.data_ptr() for cache in session.caches))
    session.remove([1])
    assert places == {tuple(cache.keys.data_ptr() for cache in session.caches)}


def test_sessions_do_not_know_each_other(model, cameras, photos):
    first, second = begin(model, cameras), begin(model, cameras[:4])
    first.add_views(photos[:1], cameras[0])
    before = first.render(cameras[5])
    second.add_views(photos[1:3], cameras[1:3])
    assert near(first.render(cameras[5]), before)
    assert not near(second.render(cameras[5]), before)


def test_views_have_the_cameras_sizes_whatever_the_patch(model, cameras, photos):
    session = begin(model, cameras)
    session.add_views(photos[:2], cameras[:2])
    odd = Cameras.concatenate([cameras[3].scaled(0.7), cameras[4], cameras[5].scaled(1.3)])
    views = session.render(odd)
    assert [(v.shape[1], v.shape[0]) for v in views] == [tuple(s) for s in odd.sizes.tolist()]
    assert near(views[1:2], session.render(cameras[4]))


def test_chunks_change_nothing(model, cameras, photos):
    whole, parts = begin(model, cameras, chunk=8), begin(model, cameras, chunk=1)
    for session in (whole, parts):
        session.add_views(photos[:2], cameras[:2])
    assert near(whole.render(cameras[2:6]), parts.render(cameras[2:6]))


def test_the_first_photos_set_the_frame_and_far_ones_are_told(model, cameras, photos, caplog):
    caplog.set_level(logging.WARNING)
    session = Session(model)
    session.add_views(photos[:3], cameras[:3])
    own = cameras[:3]
    assert session.frame.reach(own) == pytest.approx(1)
    session.add_views(photos[:1], cameras[0])
    assert caplog.text == ""
    away = Cameras(cameras.viewmats[3:4].clone(), cameras.Ks[3:4], cameras.sizes[3:4])
    away.viewmats[:, :3, 3] += 50
    session.add_views(photos[3:4], away)
    assert "times as far out" in caplog.text
    with pytest.raises(ValueError, match="remove them first"):
        session.set_frame(cameras)


def test_what_cannot_work_is_one_sentence(model, cameras, photos):
    session = Session(model, capacity=2)
    for given, own, message in (
        (photos[:1], cameras[0], "1 cameras are at one place"),
        (photos[:2], cameras[[0, 0]], "2 cameras are at one place"),
        (photos[:1], cameras[:2], "1 photos for 2 cameras"),
        ([photos[0][:-1], photos[1]], cameras[:2], "camera's size"),
        (photos[:3], cameras[:3], "room for 2 photos, 0 of them taken: no place for 3 more"),
    ):
        with pytest.raises(ValueError, match=message):
            session.add_views(given, own)
        assert session.views == ()
    with pytest.raises(ValueError, match="add a photo first"):
        session.render(cameras[0])
    session.add_views(photos[:2], cameras[:2])
    with pytest.raises(ValueError, match=r"no photo 7 is there, but \[0, 1\]"):
        session.remove([0, 7])
    assert session.views == (0, 1)
    with pytest.raises(ValueError, match="must be at least 1"):
        Session(model, capacity=0)


def test_a_view_that_is_not_finite_is_an_error(model, cameras, photos):
    session = begin(model, cameras)
    for wrong in (photos[0] * float("nan"), 255 * photos[0], (255 * photos[0]).byte()):
        with pytest.raises(ValueError, match=r"photos are floats in \[0,1\]"):
            session.add_views([wrong], cameras[0])
    session.add_views(photos[:1], cameras[0])
    with torch.inference_mode():
        session.caches[0].values.fill_(float("nan"))  # what broken weights would make
    with pytest.raises(FloatingPointError):
        session.render(cameras[1])
    (first,) = session.views
    session.remove([first, first])
    assert not session.views


def test_memory_of_a_photo():
    with torch.device("meta"):
        from models.efficient_lvsm import original

        model = EfficientLVSM(original()).bfloat16()
    assert Session(model).slot_bytes == 36 * 2**20


def test_room_for_more_photos_than_memory_is_refused(model, cameras, photos):
    session = begin(model, cameras, capacity=10**12)
    with pytest.raises(ValueError, match=r"room for 1000000000000 photos takes \d+\.\d GiB"):
        session.add_views(photos[:1], cameras[0])
    assert not session.views
