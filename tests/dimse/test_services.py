from pynetdicom.sop_class import _STORAGE_CLASSES

from pacs.dimse.services import FIND, STORE, catalogue, service_for
from pacs.services.peers import SERVICES, Peer


def test_every_storage_class_that_another_library_knows_is_served() -> None:
    assert {uid for uid in _STORAGE_CLASSES.values() if catalogue().get(uid) is not STORE} == set()


def test_each_service_that_a_peer_may_be_given_has_a_row() -> None:
    assert {service.name for service in catalogue().values()} == SERVICES
    assert sum(service is FIND for service in catalogue().values()) == 2


def test_a_private_class_is_served_to_its_peer_only() -> None:
    assert service_for(catalogue(), "1.2.3", None) is None
    assert service_for(catalogue(), "1.2.3", Peer("X", storage_classes=("1.2.3",))) is STORE
