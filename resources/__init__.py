"""Files that come with Sfumato: starter checkpoint, recipes, report templates."""
