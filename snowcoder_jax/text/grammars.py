"""The tree-sitter grammars of the 18 languages: packages, and kinds of nodes that rules look at.

The kinds are those of the grammars' own `node-types.json`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from snowcoder_jax.text import reader


@dataclass(frozen=True)
class Grammar:
    """One language's grammar: its package, and the kinds of its nodes, separated by blanks.

    Attributes:
      functions: definitions and bare signatures of functions and methods.
      classes: definitions of classes, structures, interfaces, traits, tables and the like.
      variables: declarations of, or assignments to, variables.
      bare: those of `variables` that count as simple where their last part (the initialiser, or
        the type or name where there is none) is a name or a literal.
    """

    package: str
    functions: str
    classes: str = ""
    imports: str = ""
    returns: str = "return_statement"
    variables: str = ""
    bare: str = ""
    entry: str = "language"


C = Grammar(
    "tree_sitter_c",
    functions="function_definition",
    classes="field_declaration_list",
    imports="preproc_include",
    variables="declaration field_declaration",
    bare="declaration field_declaration",
)
CPP = replace(C, package="tree_sitter_cpp")
PYTHON = Grammar(
    "tree_sitter_python",
    functions="function_definition",
    classes="class_definition",
    imports="import_statement import_from_statement future_import_statement",
    variables="assignment for_statement parameters",
)
_JAVASCRIPT = Grammar(
    "tree_sitter_javascript",
    functions="function_declaration generator_function_declaration method_definition",
    classes="class_declaration",
    imports="import_statement",
    variables="variable_declarator assignment_expression field_definition",
    bare="variable_declarator",
)
_TYPESCRIPT = Grammar(
    "tree_sitter_typescript",
    functions=f"{_JAVASCRIPT.functions} function_signature method_signature"
    " abstract_method_signature",
    classes="class_declaration abstract_class_declaration interface_declaration enum_declaration",
    imports="import_statement",
    variables="variable_declarator assignment_expression public_field_definition",
    bare="variable_declarator",
    entry="language_typescript",
)
TSX = replace(_TYPESCRIPT, entry="language_tsx")

GRAMMARS: dict[str, Grammar] = {
    "Python": PYTHON,
    reader.NOTEBOOK: PYTHON,  # by the script that it becomes
    "C": C,
    "C++": CPP,
    "JavaScript": _JAVASCRIPT,
    "TypeScript": _TYPESCRIPT,
    "Java": Grammar(
        "tree_sitter_java",
        functions="method_declaration constructor_declaration compact_constructor_declaration",
        classes="class_declaration interface_declaration enum_declaration record_declaration"
        " annotation_type_declaration",
        imports="import_declaration",
        variables="variable_declarator",
        bare="variable_declarator",
    ),
    "C#": Grammar(
        "tree_sitter_c_sharp",
        functions="method_declaration constructor_declaration destructor_declaration"
        " operator_declaration local_function_statement",
        classes="class_declaration struct_declaration interface_declaration record_declaration"
        " enum_declaration",
        imports="using_directive",
        variables="variable_declarator",
        bare="variable_declarator",
    ),
    "Go": Grammar(
        "tree_sitter_go",
        functions="function_declaration method_declaration method_elem",
        classes="struct_type interface_type",
        imports="import_declaration",
        variables="var_spec const_spec short_var_declaration",
        bare="var_spec",
    ),
    "PHP": Grammar(
        "tree_sitter_php",
        functions="function_definition method_declaration",
        classes="class_declaration interface_declaration trait_declaration enum_declaration",
        imports="namespace_use_declaration include_expression include_once_expression"
        " require_expression require_once_expression",
        variables="assignment_expression property_element",
        bare="property_element",
        entry="language_php",
    ),
    "SQL": Grammar(
        "tree_sitter_sql",
        functions="create_function create_procedure",
        classes="create_table create_view create_materialized_view create_type",
        returns="",
    ),
    "Ruby": Grammar(
        "tree_sitter_ruby",
        functions="method singleton_method",
        classes="class module singleton_class",
        returns="return",
        variables="assignment",
    ),
    "Rust": Grammar(
        "tree_sitter_rust",
        functions="function_item function_signature_item",
        classes="struct_item enum_item trait_item impl_item union_item",
        imports="use_declaration extern_crate_declaration",
        returns="return_expression",
        variables="let_declaration const_item static_item",
        bare="let_declaration const_item static_item",
    ),
    "Scala": Grammar(
        "tree_sitter_scala",
        functions="function_definition function_declaration",
        classes="class_definition object_definition trait_definition enum_definition",
        imports="import_declaration",
        returns="return_expression",
        variables="val_definition var_definition val_declaration var_declaration",
        bare="val_definition var_definition val_declaration var_declaration",
    ),
    "Kotlin": Grammar(
        "tree_sitter_kotlin",
        functions="function_declaration secondary_constructor",
        classes="class_declaration object_declaration",
        imports="import",
        returns="return_expression",
        variables="property_declaration",
        bare="property_declaration",
    ),
    "Shell": Grammar(
        "tree_sitter_bash",
        functions="function_definition",
        returns="",
        variables="variable_assignment",
    ),
    "Dart": Grammar(
        "tree_sitter_dart",
        functions="function_signature constructor_signature getter_signature setter_signature",
        classes="class_definition enum_declaration mixin_declaration extension_declaration",
        imports="import_or_export",
        variables="initialized_variable_definition static_final_declaration",
        bare="initialized_variable_definition static_final_declaration",
    ),
    "Swift": Grammar(
        "tree_sitter_swift",
        functions="function_declaration protocol_function_declaration init_declaration",
        classes="class_declaration protocol_declaration",
        imports="import_declaration",
        returns="control_transfer_statement",
        variables="property_declaration",
        bare="property_declaration",
    ),
}
