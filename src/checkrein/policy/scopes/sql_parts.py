"""Which statements, parts of statements and functions of SQL are known, by the names that `sqlglot`
gives their nodes. What is not here is not inside.
"""

from sqlglot import exp

ROOTS = frozenset({
    "Select", "Union", "Except", "Intersect", "Subquery", "Values", "Insert", "Update", "Delete",
    "Merge", "Create", "Drop", "Alter", "TruncateTable", "Transaction", "Commit", "Rollback",
})  # fmt: skip
KINDS = {
    "Create": frozenset({"TABLE", "VIEW", "INDEX"}),
    "Drop": frozenset({"TABLE", "VIEW"}),
    "Alter": frozenset({"TABLE", "VIEW"}),
}
_TABLES = (exp.Table, exp.Subquery, exp.Lateral, exp.Func, exp.Values)
SOURCES = {
    "Table": (exp.Identifier, exp.Dot, exp.Func),
    "From": _TABLES,
    "Join": _TABLES,
    "Lateral": (exp.Subquery, exp.Func),
}
"""What each of them may be about; anything else would be read unseen."""

PARTS = ROOTS | frozenset({
    "Add", "AddConstraint", "Adjacent", "Alias", "Aliases", "All", "AlterColumn", "AlterRename",
    "Any", "AtIndex", "AtTimeZone", "AutoIncrementColumnConstraint", "Between", "BitString",
    "BitwiseAnd", "BitwiseLeftShift", "BitwiseNot", "BitwiseOr", "BitwiseRightShift",
    "BitwiseXor", "Boolean", "Bracket", "ByteString", "CTE", "CaseSpecificColumnConstraint",
    "CharacterSet", "CharacterSetColumnConstraint", "Check", "CheckColumnConstraint",
    "CollateColumnConstraint", "Column", "ColumnConstraint", "ColumnDef", "ColumnPosition",
    "CommentColumnConstraint", "ComputedColumnConstraint", "Constraint", "Cube", "DPipe",
    "DataType", "DataTypeParam", "DefaultColumnConstraint", "Distinct", "Div", "Dot",
    "DropColumn", "DropPrimaryKey", "EQ", "Escape", "Fetch", "Filter", "ForeignKey", "From",
    "FromTimeZone", "GT", "GTE", "GeneratedAsIdentityColumnConstraint",
    "GeneratedAsRowColumnConstraint", "Glob", "Group", "GroupingSets", "Having", "HavingMax",
    "HexString", "ILike", "Identifier", "IgnoreNulls", "In", "Index", "IndexColumnConstraint",
    "IndexParameters", "IntDiv", "Interval", "IntervalSpan", "Into", "Is", "JSON",
    "JSONColumnDef", "JSONKeyValue", "JSONPath", "JSONPathFilter", "JSONPathKey",
    "JSONPathPart", "JSONPathRecursive", "JSONPathRoot", "JSONPathSelector", "JSONPathSlice",
    "JSONPathSubscript", "JSONPathUnion", "JSONPathWildcard", "JSONSchema", "JSONValue", "Join",
    "Kwarg", "LT", "LTE", "Lateral", "Like", "Limit", "LimitOptions", "Literal", "Lock", "Mod",
    "ModifyColumn", "Mul", "NEQ", "National", "Neg", "Not", "NotNullColumnConstraint", "Null",
    "NullSafeEQ", "NullSafeNEQ", "Offset", "OnCondition", "OnConflict", "Opclass", "Order",
    "Ordered", "Overlaps", "Parameter", "Paren", "Partition", "PartitionedByProperty", "Pivot",
    "PivotAlias", "PivotAny", "Placeholder", "PrimaryKey", "PrimaryKeyColumnConstraint",
    "Properties", "PropertyEQ", "Qualify", "RawString", "Reference", "RegexpILike",
    "RenameColumn", "RespectNulls", "Returning", "Rollup", "Schema", "SimilarTo", "Slice",
    "SortArray", "Star", "Sub", "Table", "TableAlias", "TableColumn", "TableSample",
    "TemporaryProperty", "Tuple", "UniqueColumnConstraint", "Var", "When", "Whens", "Where",
    "Window", "WindowSpec", "With", "WithinGroup", "XMLNamespace",
})  # fmt: skip
"""The parts that are known to do nothing but what the tables and functions in them do."""

FUNCTIONS_REFUSED = frozenset({
    "AnonymousAggFunc", "Apply", "Columns", "CombinedAggFunc", "CombinedParameterizedAgg",
    "Decrypt", "DecryptRaw", "DynamicIdentifier", "FeaturesAtTime", "GapFill", "GenerateBool",
    "GenerateDouble", "GenerateEmbedding", "GenerateInt", "GenerateTable", "GenerateText",
    "Generator", "GetExtract", "Host", "List", "NetFunc", "NextValueFor", "OpenJSON",
    "ParameterizedAgg", "Predict", "ReadCSV", "ReadParquet", "Reduce", "RegDomain", "Search",
    "SearchIp", "Secret", "Stack", "ToFile", "Transform", "Try", "VectorSearch", "XMLGet",
})  # fmt: skip
REFUSED_PREFIXES = ("AI", "ML", "Safe", "CurrentAvailable")
FUNCTIONS_KNOWN = frozenset({
    "age", "array_length", "array_lower", "array_ndims", "array_positions", "array_to_json",
    "array_upper", "bit_length", "bit_xor", "cardinality", "ceiling", "char_length",
    "character_length", "clock_timestamp", "cosd", "cume_dist", "date", "date_format",
    "date_part", "datefromparts", "datename", "datepart", "datetime", "dayname", "dayofyear",
    "decode", "encode", "enum_range", "eomonth", "every", "field", "find_in_set", "format",
    "from_unixtime", "gen_random_uuid", "getdate", "glob", "hex", "ifnull", "ilike", "instr",
    "isdate", "isfinite", "isnull", "isnumeric", "json", "json_agg", "json_array",
    "json_array_elements", "json_array_elements_text", "json_array_length", "json_arrayagg",
    "json_build_array", "json_build_object", "json_contains", "json_each", "json_each_text",
    "json_extract", "json_extract_path", "json_extract_path_text", "json_group_array",
    "json_group_object", "json_insert", "json_keys", "json_length", "json_modify",
    "json_object", "json_object_agg", "json_object_keys", "json_objectagg", "json_patch",
    "json_populate_record", "json_query", "json_quote", "json_remove", "json_replace",
    "json_search", "json_set", "json_strip_nulls", "json_table", "json_to_record",
    "json_to_recordset", "json_tree", "json_type", "json_typeof", "json_unquote", "json_valid",
    "json_value", "jsonb_agg", "jsonb_array_elements", "jsonb_array_elements_text",
    "jsonb_array_length", "jsonb_build_array", "jsonb_build_object", "jsonb_each",
    "jsonb_each_text", "jsonb_extract_path", "jsonb_extract_path_text", "jsonb_insert",
    "jsonb_object_agg", "jsonb_object_keys", "jsonb_pretty", "jsonb_set", "jsonb_strip_nulls",
    "jsonb_to_record", "jsonb_to_recordset", "jsonb_typeof", "julianday", "justify_days",
    "last_insert_rowid", "lcase", "length", "like", "likelihood", "likely", "locate", "lpad",
    "ltrim", "make_date", "make_interval", "make_time", "make_timestamp", "make_timestamptz",
    "mod", "monthname", "newid", "now", "nullif", "num_nonnulls", "num_nulls", "octet_length",
    "patindex", "percent_rank", "phrase_to_tsquery", "phraseto_tsquery", "plainto_tsquery",
    "position", "printf", "quote", "quote_ident", "quote_literal", "quotename", "random",
    "regexp_match", "regexp_matches", "regexp_split_to_array", "regexp_split_to_table",
    "replicate", "row", "row_to_json", "rpad", "rtrim", "scope_identity", "sign", "similarity",
    "square", "statement_timestamp", "std", "str", "strftime", "string_to_array", "strpos",
    "substr", "substring", "sysdatetime", "sysutcdatetime", "time", "time_bucket", "timediff",
    "timeofday", "timestamp", "timestampdiff", "to_date", "to_json", "to_jsonb", "to_number",
    "to_timestamp", "to_tsquery", "to_tsvector", "total", "transaction_timestamp", "translate",
    "trunc", "truncate", "ts_headline", "ts_rank", "ts_rank_cd", "typeof", "ucase", "unicode",
    "unixepoch", "unlikely", "unnest", "utc_timestamp", "uuid_generate_v4", "values",
    "websearch_to_tsquery", "weekday", "width_bucket", "word_similarity", "yearweek",
})  # fmt: skip
"""Functions that sqlglot has no node for, and that only compute."""
