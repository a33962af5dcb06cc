//! Where in a template something is, as Go says it: `:1:9` and `<.Config.Nope>`.

use gotmpl::parse::{CommandNode, Expr, ListNode, Node, Number, PipeNode};

use crate::cli::template::functions::NAMES;

/// A place in a template.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
    /// What stands there.
    pub(crate) shown: String,
    /// The field before the one that was looked for.
    pub(crate) before: Option<String>,
}

/// Returns the place of the first field with a name.
pub(crate) fn field_place(tree: &ListNode, name: &str) -> Option<Place> {
    let mut found = None;
    every_expression(tree, &mut |expression| {
        let (fields, first_len) = match expression {
            Expr::Field(_, fields) => (fields, fields.first().map_or(0, |field| field.len() + 1)),
            Expr::Variable(_, variable, fields) => (fields, variable.len()),
            _ => return,
        };
        let Some(at) = fields.iter().position(|field| field == name) else { return };
        if found.is_some() {
            return;
        }
        // Go counts from the second part where there are several.
        let several = fields.len() > 1 || matches!(expression, Expr::Variable(..));
        let column = expression.pos().offset + if several { first_len } else { 0 };
        found = Some(Place {
            line: expression.pos().line,
            column,
            shown: shown(expression),
            before: at.checked_sub(1).map(|before| fields[before].to_string()),
        });
    });
    found
}

/// Returns the place of the first call of one of these functions.
pub(crate) fn function_place(tree: &ListNode, names: &[&str]) -> Option<Place> {
    let mut found = None;
    every_command(tree, &mut |command| {
        let Some(Expr::Identifier(pos, name)) = command.args.first() else { return };
        if found.is_some() || !names.contains(&name.as_str()) {
            return;
        }
        let words: Vec<_> = command.args.iter().map(shown).collect();
        let (line, column) = (pos.line, pos.offset);
        found = Some(Place { line, column, shown: words.join(" "), before: None });
    });
    found
}

/// Returns where commands begin that are a field of the row with a name, as bytes of the text, in its order.
pub(crate) fn calls_of_field(tree: &ListNode, name: &str) -> Vec<usize> {
    let mut found = Vec::new();
    every_command(tree, &mut |command| {
        if let [Expr::Field(pos, fields), ..] = command.args.as_slice()
            && matches!(fields.as_slice(), [field] if field == name)
        {
            found.push(pos.offset);
        }
    });
    found.sort_unstable();
    found
}

/// Returns the first function that does not exist, and its line.
pub(crate) fn unknown_function(tree: &ListNode) -> Option<(String, usize)> {
    let mut found = None;
    every_expression(tree, &mut |expression| {
        if let Expr::Identifier(pos, name) = expression
            && !NAMES.contains(&name.as_str())
            && found.is_none()
        {
            found = Some((name.to_string(), pos.line));
        }
    });
    found
}

fn shown(expression: &Expr) -> String {
    let dotted = |fields: &[gotmpl::parse::SmolStr]| -> String {
        fields.iter().map(|field| format!(".{field}")).collect()
    };
    match expression {
        Expr::Dot(_) => ".".to_owned(),
        Expr::Field(_, fields) => dotted(fields),
        Expr::Variable(_, name, fields) => format!("{name}{}", dotted(fields)),
        Expr::Identifier(_, name) => name.to_string(),
        Expr::String(_, text) => format!("{text:?}"),
        Expr::Number(_, Number::Int(number)) => number.to_string(),
        Expr::Number(_, Number::Uint(number)) => number.to_string(),
        Expr::Number(_, Number::Float(number)) => number.to_string(),
        Expr::Bool(_, value) => value.to_string(),
        Expr::Nil(_) => "nil".to_owned(),
        Expr::Pipe(_, pipe) => {
            let command = |command: &CommandNode| {
                command.args.iter().map(shown).collect::<Vec<_>>().join(" ")
            };
            let commands: Vec<_> = pipe.commands.iter().map(command).collect();
            format!("({})", commands.join(" | "))
        }
        Expr::Chain(_, inner, fields) => format!("{}{}", shown(inner), dotted(fields)),
    }
}

/// Calls `see` with every expression, in the order of the text.
fn every_expression(tree: &ListNode, see: &mut dyn FnMut(&Expr)) {
    every_command(tree, &mut |command| {
        for expression in &command.args {
            see(expression);
            if let Expr::Chain(_, inner, _) = expression {
                see(inner);
            }
        }
    });
}

/// Calls `see` with every command, in the order of the text.
fn every_command(tree: &ListNode, see: &mut dyn FnMut(&CommandNode)) {
    for node in &tree.nodes {
        match node {
            Node::List(list) => every_command(list, see),
            Node::Action(action) => commands_of(&action.pipe, see),
            Node::If(branch) | Node::Range(branch) | Node::With(branch) => {
                commands_of(&branch.pipe, see);
                every_command(&branch.body, see);
                if let Some(otherwise) = &branch.else_body {
                    every_command(otherwise, see);
                }
            }
            Node::Template(template) => {
                if let Some(pipe) = &template.pipe {
                    commands_of(pipe, see);
                }
            }
            Node::Define(define) => every_command(&define.body, see),
            Node::Text(_) | Node::Break(_) | Node::Continue(_) => {}
        }
    }
}

fn commands_of(pipe: &PipeNode, see: &mut dyn FnMut(&CommandNode)) {
    for command in &pipe.commands {
        see(command);
        for expression in &command.args {
            let inner = match expression {
                Expr::Chain(_, inner, _) => inner,
                other => other,
            };
            if let Expr::Pipe(_, pipe) = inner {
                commands_of(pipe, see);
            }
        }
    }
}
