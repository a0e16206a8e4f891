"""Reports: results in, tables, figures and pages out."""
