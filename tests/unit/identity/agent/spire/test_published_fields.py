import pytest

from nginx_mesh.identity.agent.spire import entry_pb2 as ours

# Numbers of fields in SPIRE's published API, spire.api.types and spire.api.server.entry.v1.
PUBLISHED = {
    "SPIFFEID": {"trust_domain": 1, "path": 2},
    "Selector": {"type": 1, "value": 2},
    "Status": {"code": 1, "message": 2},
    "Entry": {
        "id": 1,
        "spiffe_id": 2,
        "parent_id": 3,
        "selectors": 4,
        "x509_svid_ttl": 5,
        "federates_with": 6,
        "dns_names": 10,
    },
    "EntryMask": {
        "spiffe_id": 2,
        "parent_id": 3,
        "selectors": 4,
        "x509_svid_ttl": 5,
        "federates_with": 6,
        "dns_names": 10,
    },
    "ListEntriesRequest": {"filter": 1, "output_mask": 2, "page_size": 3, "page_token": 4},
    "ListEntriesResponse": {"entries": 1, "next_page_token": 2},
    "BatchCreateEntryRequest": {"entries": 1, "output_mask": 2},
    "BatchCreateEntryResponse": {"results": 1},
    "BatchUpdateEntryRequest": {"entries": 1, "input_mask": 2, "output_mask": 3},
    "BatchUpdateEntryResponse": {"results": 1},
    "BatchDeleteEntryRequest": {"ids": 1},
    "BatchDeleteEntryResponse": {"results": 1},
}


@pytest.mark.parametrize("message", ours.DESCRIPTOR.message_types_by_name)
def test_fields_have_the_published_numbers(message: str) -> None:
    fields = ours.DESCRIPTOR.message_types_by_name[message].fields
    assert {field.name: field.number for field in fields} == PUBLISHED[message]
