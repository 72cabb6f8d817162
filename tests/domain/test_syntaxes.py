from pydicom._uid_dict import UID_dictionary

from pacs.domain.syntaxes import DEFAULT_SYNTAX, SYNTAXES


def test_every_uid_of_the_table_is_a_transfer_syntax_of_the_dictionary_or_newer() -> None:
    newer = {"1.2.840.10008.1.2.4.110", "1.2.840.10008.1.2.4.111", "1.2.840.10008.1.2.4.112", "1.2.840.10008.1.2.8.1"}
    known = {uid for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"}
    assert set(SYNTAXES) - newer <= known


def test_default_syntaxes_are_lossless_unless_video_and_have_their_media_type() -> None:
    for media_type, uid in DEFAULT_SYNTAX.items():
        syntax = SYNTAXES[uid]
        assert syntax.video or not syntax.lossy
        if media_type not in {"application/dicom", "image/x-dicom-rle"}:
            assert syntax.media_type == media_type


def test_only_encapsulated_syntaxes_have_frames_of_a_media_type() -> None:
    for syntax in SYNTAXES.values():
        if not syntax.encapsulated:
            assert syntax.media_type == "application/octet-stream"
            assert syntax.decodable
