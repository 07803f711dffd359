"""The server keeps what its OpenAPI document promises, whatever it is sent."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import Server

schemathesis = pytest.importorskip("schemathesis")

from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
EXAMPLES = 15


def test_answers_are_as_documented(server: Server) -> None:
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    document = document.exclude(path_regex="events$")  # these streams have no end
    operations = [result.ok() for result in document.get_all_operations()]
    assert len(operations) >= 10
    for operation in operations:
        cases = st.one_of(
            operation.as_strategy(), operation.as_strategy(schemathesis.GenerationMode.NEGATIVE)
        )

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(cases)
        def check(case: Any) -> None:
            case.call_and_validate(checks=CHECKS, timeout=60)

        check()
