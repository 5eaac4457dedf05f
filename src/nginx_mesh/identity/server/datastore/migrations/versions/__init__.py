"""One module per version of the schema. They are history: they never change, nor use the tables of today."""
