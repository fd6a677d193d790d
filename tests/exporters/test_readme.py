"""The README's descriptions are JSON that the package recognises."""
from __future__ import annotations

import json
import re
import unittest

from support import EXPORTERS

from din_export import frameworks
from din_export.description import Description


class ReadmeTest(unittest.TestCase):
    def test_every_example_is_a_description_of_its_framework(self) -> None:
        text = (EXPORTERS / "README.md").read_text()
        found = set()
        for heading, block in re.findall(r"^### (\S+?),? .*?```json\n(.*?)```", text, re.S | re.M):
            description = Description(json.loads(block))
            module = frameworks.identify(description)
            self.assertEqual(module.NAME, heading)
            self.assertEqual(description.unread(set(description.hyperparameters)), [])
            for name in description.scopes:
                description.scope(name)
            found.add(module.NAME)
        self.assertEqual(found, {m.NAME for m in frameworks.MODULES} - {"canonical", "x-deeplearning"})

    def test_there_is_a_short_snippet_for_every_framework(self) -> None:
        text = (EXPORTERS.parent / "docs" / "golden-data.md").read_text()
        for block in re.findall(r"```python\n(.*?)```", text, re.S):
            compile(block, "golden-data.md", "exec")
            self.assertLessEqual(len(block.splitlines()), 15)
        headings = [
            name for h in re.findall(r"^## ([^\n]*)\n.*?```python", text, re.S | re.M) for name in h.split(" and ")
        ]
        found = {frameworks.by_name(h) or frameworks.by_repository(h) or frameworks.canonical for h in headings}
        self.assertEqual(found, set(frameworks.MODULES))


if __name__ == "__main__":
    unittest.main()
