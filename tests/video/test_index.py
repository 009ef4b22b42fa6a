"""Numbering frames from packets: when it holds, when it refuses, and what becomes of a wrong prediction."""

import av
import numpy as np
import pytest

from odd_videos import (
    assert_reads_like_the_truth,
    damaged,
    digest,
    encode_video,
    read_through,
    sequential_decode,
)
from videomae.errors import VideoReadError
from videomae.video.decode import VideoReader
from videomae.video.index import index_from_packets
from videomae.video.packets import PacketFacts, packet_table

X264_SHORT_GROUPS = {"g": "6", "bf": "2"}


# ---- files made here: containers that lie ---------------------------------------------------------------------


def test_a_container_whose_seek_table_is_wrong_is_read_right(tmp_path):
    path = encode_video(tmp_path / "keys.mp4", options={"g": "10", "bf": "0", "sc_threshold": "0"})
    data = path.read_bytes()
    table = data.index(b"stss") + 8  # after name and flags: the count, then sample numbers from 1
    assert np.frombuffer(data[table : table + 16], ">u4").tolist() == [3, 1, 11, 21]
    path.write_bytes(data[: table + 8] + np.array([16, 24], ">u4").tobytes() + data[table + 16 :])
    assert_reads_like_the_truth(path)


def test_a_container_that_calls_every_packet_a_keyframe_is_read_right(tmp_path):
    path = encode_video(tmp_path / "keys.flv", codec="flv", options={"g": "10"})
    data, tag = bytearray(path.read_bytes()), 13
    while tag < len(data):
        if data[tag] == 9 and data[tag + 11] == 0x22:  # a video tag that holds an inter frame of Sorenson's codec
            data[tag + 11] = 0x12
        tag += 15 + int.from_bytes(data[tag + 1 : tag + 4], "big")
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert all(packet.is_keyframe for packet in container.demux(video=0) if packet.size)
    with av.open(str(path)) as container:
        assert 1 < sum(picture.key_frame for picture in container.decode(video=0)) < 30
    assert_reads_like_the_truth(path)


def test_a_recording_that_begins_between_two_keyframes_is_read_right(tmp_path):
    """What comes before the first keyframe does not decode; that is no damage."""
    options = {"g": "50", "bf": "2", "sc_threshold": "0"}
    whole = encode_video(tmp_path / "whole.ts", num_frames=100, options=options).read_bytes()
    path = tmp_path / "cut.ts"
    path.write_bytes(whole[len(whole) // 188 // 10 * 188 :])
    with av.open(str(path)) as container:
        num_packets = sum(packet.size > 0 for packet in container.demux(video=0))
    expected = [digest(frame) for frame in sequential_decode(path, num_threads=1)]
    assert 45 < len(expected) < 55 < num_packets < 95
    assert_reads_like_the_truth(path, expected=expected)


def test_recordings_joined_end_to_end_are_read_in_the_order_of_the_file(tmp_path):
    """Times start again in the middle, so they cannot number the frames."""
    whole = encode_video(tmp_path / "whole.ts", options=X264_SHORT_GROUPS).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(whole + whole)
    expected = [digest(frame) for frame in sequential_decode(path)]
    assert len(expected) > 55
    assert_reads_like_the_truth(path, expected=expected)


def test_frames_of_another_size_are_scaled_to_the_first(tmp_path):
    small = encode_video(tmp_path / "small.ts", options=X264_SHORT_GROUPS).read_bytes()
    large = encode_video(tmp_path / "large.ts", options=X264_SHORT_GROUPS, size=(96, 80)).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(small + large)
    with av.open(str(path)) as container:
        pictures = list(container.decode(video=0))
    assert {(picture.width, picture.height) for picture in pictures} == {(64, 48), (80, 96)}
    expected = [digest(picture.to_ndarray(format="rgb24", width=64, height=48)) for picture in pictures]
    assert_reads_like_the_truth(path, expected=expected)


def test_damage_that_costs_a_frame_is_noticed_when_passed_and_the_frames_are_numbered_anew(tmp_path):
    whole = encode_video(tmp_path / "whole.mp4", num_frames=96, options={"g": "12", "bf": "0", "sc_threshold": "0"})
    path = damaged(whole, tmp_path / "damaged.mp4", packet=30)
    expected = [digest(frame) for frame in sequential_decode(path, num_threads=1)]
    assert len(expected) == 95
    with VideoReader(path) as reader:
        assert digest(reader.frames([5])[0]) == expected[5]
        assert len(reader) == 96  # what the documentation of VideoReader leaves open
        assert digest(reader.frames([34])[0]) == expected[34]
        assert len(reader) == 95
        with pytest.raises(VideoReadError, match=r"frame 95 was asked of .* which has frames 0 to 94"):
            reader.frames([95])
        assert [digest(frame) for frame in reader.frames(range(95))] == expected


def test_damage_that_only_garbles_frames_is_noticed(tmp_path):
    options = {"g": "12", "bf": "2", "sc_threshold": "1000000000"}  # no keyframes at cuts
    whole = encode_video(tmp_path / "whole.mp4", codec="mpeg4", num_frames=48, options=options)
    path = damaged(whole, tmp_path / "damaged.mp4", packet=12, keep=200)
    with av.open(str(path)) as container:
        pictures = list(container.decode(video=0))
    assert [number for number, picture in enumerate(pictures) if picture.is_corrupt] == [11]
    with VideoReader(path) as reader:
        reader.frames([3])
        assert not reader._known_index().is_decoded
        reader.frames([11])
        assert reader._known_index().is_decoded
    assert_reads_like_the_truth(path)


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "name"), [("libx264", "x.mp4"), ("libx265", "x.mp4"), ("mpeg4", "x.avi")])
def test_randomly_damaged_files_read_like_the_truth_once_read_through_or_are_refused(tmp_path, codec, name):
    options = {"g": "12", "bf": "2", "x265-params": "keyint=12:bframes=2:log-level=none"}
    whole = encode_video(tmp_path / f"whole_{name}", codec=codec, num_frames=48, options=options)
    with av.open(str(whole)) as container:
        places = [item.pos + byte for item in container.demux(video=0) for byte in range(item.size)]
    rng = np.random.default_rng(7)
    path, num_read, num_refused = tmp_path / name, 0, 0
    for _ in range(25):
        data = bytearray(whole.read_bytes())
        start = int(rng.choice(places))
        data[start : start + 20] = rng.bytes(len(data[start : start + 20]))
        path.write_bytes(data)
        try:
            with VideoReader(path) as reader:
                frames = read_through(reader)
                order = rng.permutation(len(frames))
                if reader._known_index().is_decoded:  # the damage was noticed: from here on nothing may deviate
                    assert all((reader.frames([number])[0] == frames[number]).all() for number in order.tolist())
        except VideoReadError:
            num_refused += 1
            continue
        assert [digest(frame) for frame in frames] == [
            digest(frame) for frame in sequential_decode(path, num_threads=1)
        ]
        num_read += 1
    assert num_read + num_refused == 25
    assert num_read > 10


def test_a_file_of_which_much_does_not_decode_is_refused(tmp_path):
    path = encode_video(tmp_path / "damaged.mp4", num_frames=60, options={"g": "1"})
    for packet in range(10, 40):
        damaged(path, path, packet=packet)
    with VideoReader(path) as reader, pytest.raises(VideoReadError, match="is damaged: 60 packets give only 30 fram"):
        reader.frames([5, 15, 50])


# ---- the prediction itself ------------------------------------------------------------------------------------


def packets(*rows):
    """Packets of 100 bytes or so from (time, is key, frames shown), in the order of the file."""
    return packet_table(
        [
            PacketFacts(time, number, 100 + number, bool(is_key), shown)
            for number, (time, is_key, shown) in enumerate(rows)
        ]
    )


SOUND = [(0, 1, 1), (30, 0, 1), (10, 0, 1), (20, 0, 1), (60, 1, 1), (40, 0, 1), (50, 0, 1), (70, 0, 1)]


def test_frames_are_numbered_by_presentation_time():
    index = index_from_packets(packets(*SOUND), codec="h264", seconds_per_unit=0.01)
    assert index.num_frames == 8
    assert index.pts.tolist() == [0, 10, 20, 30, 40, 50, 60, 70]
    assert index.time_seconds.tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])


def test_frames_that_lie_behind_a_keyframe_but_are_shown_before_it_are_reached_from_the_one_before():
    index = index_from_packets(packets(*SOUND), codec="h264", seconds_per_unit=0.01)
    assert (index.seek_frames.tolist(), index.seek_packets.tolist()) == ([0, 6], [0, 4])
    assert [index.seek_point(frame).packet for frame in range(8)] == [0, 0, 0, 0, 0, 0, 4, 4]


def test_packets_that_show_nothing_are_no_frames():
    hidden = [SOUND[0], (5, 0, 0), *SOUND[1:]]
    assert index_from_packets(packets(*hidden), codec="vp9", seconds_per_unit=0.01).num_frames == 8
    before_the_edit = [(-10, 1, 0), *((time, False, shown) for time, _, shown in SOUND)]
    assert index_from_packets(packets(*before_the_edit), codec="h264", seconds_per_unit=0.01).num_frames == 8


@pytest.mark.parametrize(
    ("codec", "rows"),
    [
        ("theora", SOUND),  # unknown keyframes
        ("h264", []),
        ("h264", [*SOUND, (80, 0, None)]),  # looks damaged
        ("h264", [*SOUND, (None, 0, 1)]),  # time missing
        ("h264", [*SOUND, (70, 0, 1)]),  # time doubled
        ("h264", [(time, False, shown) for time, _, shown in SOUND]),  # does not begin with a keyframe
        ("h264", [(15, 1, 1), *SOUND[1:]]),  # frames that refer to what is not there
        ("h264", [(time + 1000 * (0 < time < 80), time == 0, 1) for time in range(160)]),  # time runs backwards
    ],
)
def test_what_packets_cannot_tell_is_left_to_the_decoder(codec, rows):
    assert index_from_packets(packets(*rows), codec=codec, seconds_per_unit=0.01) is None


def rewrite(path, target, change):
    """Copy a video packet by packet; `change` maps a packet's number and content to what is written, or to None."""
    with av.open(str(path)) as source, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            content = change(number, bytes(packet))
            if content is not None:
                changed = av.Packet(content)
                changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
                changed.is_keyframe, changed.stream = packet.is_keyframe, stream
                container.mux(changed)
    return target


def test_packets_of_hidden_frames_are_told_from_the_others(tmp_path):
    if "libvpx" not in av.codecs_available:
        pytest.skip("this PyAV's FFmpeg has no encoder libvpx")

    def hide(number, content):
        # Bit 4 of a VP8 frame is show_frame.
        return bytes([content[0] & 0b11101111]) + content[1:] if number in (7, 8, 25) else content

    whole = encode_video(tmp_path / "whole.webm", codec="libvpx", num_frames=40, options={"g": "10"})
    path = rewrite(whole, tmp_path / "hidden.webm", hide)
    expected = [digest(frame) for frame in sequential_decode(path)]
    assert len(expected) == 37
    with VideoReader(path) as reader:
        index = reader._known_index()
        assert (index.num_frames, len(index.packets), index.is_decoded) == (37, 40, False)
    assert_reads_like_the_truth(path, expected=expected)


def test_packets_that_wait_in_vain_for_a_keyframe_are_no_damage(tmp_path):
    if "libvpx" not in av.codecs_available:
        pytest.skip("this PyAV's FFmpeg has no encoder libvpx")
    whole = encode_video(tmp_path / "whole.webm", codec="libvpx", num_frames=60, options={"g": "20"})
    path = rewrite(whole, tmp_path / "cut.webm", lambda number, content: content if number >= 8 else None)
    with av.open(str(path)) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    assert keys.index(True) == 12
    assert len(list(sequential_decode(path, num_threads=1))) == 40
    assert_reads_like_the_truth(path)


def test_packets_of_two_mpeg4_frames_are_left_to_the_decoder(tmp_path):
    """Old AVI files pack a picture with the one that follows it."""
    contents = []

    def pack(number, content):
        contents.append(content)
        return contents[20] + content if number == 21 else None if number == 20 else content

    whole = encode_video(tmp_path / "whole.avi", codec="mpeg4", num_frames=40, options={"g": "10"})
    path = rewrite(whole, tmp_path / "packed.mkv", pack)
    with VideoReader(path) as reader:
        assert reader._video.index is None
    assert_reads_like_the_truth(path)


def test_interlaced_video_is_left_to_the_decoder(tmp_path):
    """Its two fields may lie in packets of their own, which one cannot tell from those of whole frames."""
    options = X264_SHORT_GROUPS | {"x264-params": "interlaced=1"}
    with VideoReader(encode_video(tmp_path / "interlaced.mp4", options=options)) as reader:
        assert reader._video.index is None
        assert len(reader) == 30


def test_packets_of_hidden_vp9_frames_are_told_from_the_others(shared_folder):
    with VideoReader(shared_folder / "videos" / "edge_cases" / "roadtrip-vp92-10bit.webm") as reader:
        index = reader._known_index()
        assert (index.num_frames, len(index.packets), index.is_decoded) == (72, 80, False)
