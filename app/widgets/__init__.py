"""The furniture of the pages. A widget knows how to show a thing, not what it means."""
