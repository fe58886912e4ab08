//! The module: directives, variables and the heads of functions.

use super::ParseError;
use super::ast::{Function, Module, Space};
use super::body::body;
use super::lexer::{Kind, Tokens};
use super::variable::{parameters, variables};

/// Hints for the compiler between the head and the body of a function; their arguments are numbers.
const PERFORMANCE: [&str; 11] = [
    ".abi_preserve",
    ".abi_preserve_control",
    ".blocksareclusters",
    ".explicitcluster",
    ".maxclusterrank",
    ".maxnctapersm",
    ".maxnreg",
    ".maxntid",
    ".minnctapersm",
    ".noreturn",
    ".reqntid",
];

pub fn module(tokens: &mut Tokens) -> Result<Module, ParseError> {
    let mut module = Module::default();
    while tokens.peek().kind != Kind::End {
        match tokens.peek().text {
            ".version" => version(tokens, &mut module)?,
            ".target" => target(tokens, &mut module)?,
            ".address_size" => address_size(tokens)?,
            ".file" => file(tokens, &mut module)?,
            ".section" => skip_section(tokens)?,
            ".pragma" => skip_pragma(tokens)?,
            _ => definition(tokens, &mut module)?,
        }
    }
    Ok(module)
}

fn version(tokens: &mut Tokens, module: &mut Module) -> Result<(), ParseError> {
    tokens.expect(".version")?;
    module.version = tokens.word("a version")?.to_owned();
    Ok(())
}

/// `.target sm_80, debug`
fn target(tokens: &mut Tokens, module: &mut Module) -> Result<(), ParseError> {
    tokens.expect(".target")?;
    module.target = tokens.name("a target")?.to_owned();
    while tokens.accept(",") {
        tokens.name("an option of the target")?;
    }
    Ok(())
}

fn address_size(tokens: &mut Tokens) -> Result<(), ParseError> {
    tokens.expect(".address_size")?;
    tokens.expect("64")
}

/// `.file 1 "kernel.cu", 1700000000, 4096`: with the time and the size of the file, or without.
fn file(tokens: &mut Tokens, module: &mut Module) -> Result<(), ParseError> {
    tokens.expect(".file")?;
    let number = tokens.integer("the number of a file")?;
    let path = tokens.string("the path of a file")?;
    while tokens.accept(",") {
        tokens.integer::<u64>("the time or the size of a file")?;
    }
    module.files.insert(number, path.to_owned());
    Ok(())
}

/// `.section .debug_str { … }`
fn skip_section(tokens: &mut Tokens) -> Result<(), ParseError> {
    tokens.expect(".section")?;
    tokens.word("the name of a section")?;
    tokens.expect("{")?;
    let mut depth = 1;
    while depth > 0 {
        let token = tokens.take();
        match token.text {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ if token.kind == Kind::End => return Err(token.instead_of("`}`")),
            _ => {}
        }
    }
    Ok(())
}

/// `.pragma "nounroll";`
pub fn skip_pragma(tokens: &mut Tokens) -> Result<(), ParseError> {
    tokens.expect(".pragma")?;
    tokens.string("a string")?;
    while tokens.accept(",") {
        tokens.string("a string")?;
    }
    tokens.expect(";")
}

/// A function or variables, with its linking directives.
fn definition(tokens: &mut Tokens, module: &mut Module) -> Result<(), ParseError> {
    let mut is_external = false;
    while [".visible", ".weak", ".common", ".extern"].contains(&tokens.peek().text) {
        is_external |= tokens.take().text == ".extern";
    }
    let token = tokens.take();
    let space = match token.text {
        ".entry" | ".func" => {
            module.functions.push(function(tokens, token.text == ".entry")?);
            return Ok(());
        }
        ".global" => Space::Global,
        ".const" => Space::Const,
        ".shared" => Space::Shared,
        _ => return Err(token.instead_of("a function or a variable")),
    };
    let variables = variables(tokens, space)?;
    if let Some(variable) = variables.first().filter(|_| is_external && space != Space::Shared) {
        let name = &variable.name;
        return Err(token.error(format!("`{name}` is defined in another module, and those are not linked")));
    }
    module.variables.extend(variables);
    Ok(())
}

fn function(tokens: &mut Tokens, is_entry: bool) -> Result<Function, ParseError> {
    let has_returns = !is_entry && tokens.next_is("(");
    let returns = if has_returns { parameters(tokens)? } else { Vec::new() };
    let name = tokens.name("the name of a function")?.to_owned();
    let params = if tokens.next_is("(") { parameters(tokens)? } else { Vec::new() };
    let cluster = performance(tokens)?;
    let is_defined = !tokens.accept(";");
    let mut function = Function { name, is_entry, is_defined, returns, params, cluster, ..Function::default() };
    if is_defined {
        body(tokens, &mut function)?;
    }
    Ok(function)
}

/// Skips what is for the compiler; the size of a cluster is not.
fn performance(tokens: &mut Tokens) -> Result<Option<[u32; 3]>, ParseError> {
    let mut cluster = None;
    loop {
        let token = tokens.peek();
        match token.text {
            "{" | ";" => return Ok(cluster),
            ".reqnctapercluster" => {
                tokens.take();
                let mut blocks = [1; 3];
                for (axis, blocks) in blocks.iter_mut().enumerate() {
                    if axis == 0 || tokens.accept(",") {
                        *blocks = tokens.integer("a number of blocks")?;
                    }
                }
                cluster = Some(blocks);
            }
            ".pragma" => skip_pragma(tokens)?,
            directive if PERFORMANCE.contains(&directive) => {
                tokens.take();
                skip_numbers(tokens)?;
            }
            _ => return Err(token.instead_of("a performance directive or `{`")),
        }
    }
}

/// `256, 1, 1`, or none.
fn skip_numbers(tokens: &mut Tokens) -> Result<(), ParseError> {
    if !tokens.peek().is_number() {
        return Ok(());
    }
    loop {
        tokens.integer::<u64>("a number")?;
        if !tokens.accept(",") {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn message(text: &str) -> String {
        parse(text).expect_err("an error").to_string()
    }

    #[test]
    fn header() {
        let module = parse(".version 9.0\n.target sm_90a, debug\n.address_size 64\n").expect("PTX");
        assert_eq!((module.version.as_str(), module.target.as_str()), ("9.0", "sm_90a"));
        assert_eq!(message(".address_size 32"), "line 1: expected `64`, got `32`");
        assert_eq!(message(".target 80"), "line 1: expected a target, got `80`");
    }

    #[test]
    fn files() {
        let module = parse(".file 1 \"a b.cu\"\n.file 2 \"c.cuh\", 1700000000, 4096").expect("PTX");
        assert_eq!(module.files[&1], "a b.cu");
        assert_eq!(module.files[&2], "c.cuh");
        assert_eq!(message(".file \"a.cu\""), "line 1: expected the number of a file, got \"a.cu\"");
    }

    #[test]
    fn sections_and_pragmas_are_skipped() {
        let module = parse(
            ".section .debug_str { $L__info_string0: .b8 95,0 { } }\n\
             .section .debug_info\n{ .b32 .debug_abbrev, a-b+1 }\n\
             .pragma \"a\", \"b\";\n.version 9.0",
        );
        assert_eq!(module.expect("PTX").version, "9.0");
        assert_eq!(message(".section .debug_str {\n{ }"), "line 2: expected `}`, got the end of the text");
    }

    #[test]
    fn entry() {
        let module = parse(
            ".visible .entry e(\n.param .align 8 .b8 a[48],\n\
             .param .u64 .ptr .global .align 16 b,\n.param .u64 .ptr c)\n\
             .maxntid 256, 1, 1\n.minnctapersm 2\n.noreturn\n.explicitcluster\n.reqnctapercluster 2\n\
             .pragma \"nounroll\";\n{ ret; }",
        );
        let function = module.expect("PTX").functions.remove(0);
        assert_eq!((function.name.as_str(), function.is_entry, function.is_defined), ("e", true, true));
        let params: Vec<_> = function.params.iter().map(|p| (p.name.as_str(), p.space, p.align, p.size)).collect();
        assert_eq!(
            params,
            [("a", Space::Param, 8, Some(48)), ("b", Space::Param, 8, Some(8)), ("c", Space::Param, 8, Some(8))]
        );
        assert_eq!(function.instructions.len(), 1);
        assert_eq!(function.cluster, Some([2, 1, 1]));
    }

    #[test]
    fn device_functions() {
        let module = parse(
            ".extern .func (.param .b32 r) vprintf\n(.param .b64 a, .param .b64 b)\n;\n.func g () { ret; }\n\
             .weak .func (.param .align 16 .b8 r[16]) h { ret; }\n.extern .func k () .noreturn;",
        );
        let functions = module.expect("PTX").functions;
        let found: Vec<_> =
            functions.iter().map(|f| (f.name.as_str(), f.is_defined, f.returns.len(), f.params.len())).collect();
        assert_eq!(found, [("vprintf", false, 1, 2), ("g", true, 0, 0), ("h", true, 1, 0), ("k", false, 0, 0)]);
        assert_eq!(functions[2].returns[0].size, Some(16));
        assert!(functions.iter().all(|function| !function.is_entry));
    }

    #[test]
    fn variables_and_their_linking() {
        let module = parse(
            ".extern .shared .align 16 .b8 s[];\n.visible .global .u32 g;\n.weak .const .f32 c;\n\
             .common .global .b8 d[3];",
        );
        let variables = module.expect("PTX").variables;
        let found: Vec<_> = variables.iter().map(|v| (v.name.as_str(), v.space, v.size)).collect();
        assert_eq!(
            found,
            [
                ("s", Space::Shared, None),
                ("g", Space::Global, Some(4)),
                ("c", Space::Const, Some(4)),
                ("d", Space::Global, Some(3))
            ]
        );
        assert_eq!(
            message(".extern .global .u32 g;"),
            "line 1: `g` is defined in another module, and those are not linked"
        );
    }

    #[test]
    fn what_is_unknown_is_refused_by_name() {
        assert_eq!(message(".alias a, b;"), "line 1: expected a function or a variable, got `.alias`");
        assert_eq!(message(".visible .tex .u64 t;"), "line 1: expected a function or a variable, got `.tex`");
        assert_eq!(
            message(".entry e ()\n.fastest 3 { ret; }"),
            "line 2: expected a performance directive or `{`, got `.fastest`"
        );
        assert_eq!(message(".func (.reg .b32 r) f;"), "line 1: expected `.param`, got `.reg`");
        assert_eq!(message(".entry"), "line 1: expected the name of a function, got the end of the text");
        assert_eq!(message(".entry e () .maxntid 1,;"), "line 1: expected a number, got `;`");
        assert_eq!(message("ret;"), "line 1: expected a function or a variable, got `ret`");
    }
}
