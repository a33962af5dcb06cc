//! What Go 1.19 made of the same templates and the same data.

use serde_json::json;

use crate::cli::template::{Functions, Template, from_document, row};

/// Returns what a template makes of an object, or what is wrong with it.
fn rendered(template: &str) -> String {
    let data = json!({
        "Id": "sha256:x", "Size": 12,
        "Config": {"Cmd": ["/bin/sh"], "Labels": {"a": "1"}, "ExposedPorts": {"80/tcp": {}}},
    });
    let template = match Template::parse(template, Functions::Object) {
        Ok(template) => template,
        Err(text) => return text,
    };
    template.render(&from_document(data)).unwrap_or_else(|text| text)
}

#[test]
fn values_are_shown_as_go_shows_them() {
    for (template, expected) in [
        ("{{.Config.Cmd}}", "[/bin/sh]"),
        ("{{.Config.Entrypoint}}", "[]"),
        ("{{json .Config.Entrypoint}}", "null"),
        ("{{json .Config.Cmd}}", r#"["/bin/sh"]"#),
        (
            "{{json .Config}}",
            r#"{"Cmd":["/bin/sh"],"ExposedPorts":{"80/tcp":{}},"Labels":{"a":"1"}}"#,
        ),
        ("{{.Config.Labels.b}}", "<no value>"),
        ("{{.Config.Labels.Label}}", "<no value>"),
        ("{{.Config.Labels.b.c}}", "<no value>"),
        (r#"{{index .Config.Labels "b"}}"#, ""),
        (r#"{{index .Config.Labels "a"}}"#, "1"),
        ("{{.Config.ExposedPorts}}", "map[80/tcp:{}]"),
        ("{{.Config.Volumes}}", "map[]"),
        ("{{range .Config.Cmd}}{{.}}{{end}}", "/bin/sh"),
        ("{{len .Config.Labels}}", "1"),
        (r#"{{printf "%d" .Size}}"#, "12"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}}{{end}}", "a=1"),
        (r#"{{join .Config.Cmd ","}}"#, "/bin/sh"),
        (r#"{{split .Id ":"}}"#, "[sha256 x]"),
        ("{{println .Id}}", "sha256:x\n"),
        ("{{if .Config.Healthcheck}}x{{else}}y{{end}}", "y"),
        ("{{upper .Id}} {{lower \"AB\"}} {{title \"ab cd\"}}", "SHA256:X ab Ab Cd"),
        ("{{pad .Id 1 2}}|{{truncate .Id 3}}", " sha256:x  |sha"),
        ("{{with .Config}}{{index .Cmd 0}}{{end}}", "/bin/sh"),
    ] {
        assert_eq!(rendered(template), expected, "{template}");
    }
}

#[test]
fn what_is_wrong_is_told_as_go_tells_it() {
    for (template, expected) in [
        ("{{.Id", "template: :1: unclosed action"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{.Id}}{{end}}", "template: :1: unexpected {{end}}"),
        ("{{foo .Id}}", "template: :1: function \"foo\" not defined"),
        ("{{range .Config.Cmd}}", "template: :1: unexpected EOF"),
        ("{{if}}x{{end}}", "template: :1: missing value for if"),
        ("{{$x}}", "template: :1: undefined variable \"$x\""),
        (
            "{{.Config.Nope}}",
            "template: :1:9: executing \"\" at <.Config.Nope>: map has no entry for key \"Nope\"",
        ),
        (
            "{{ .Config.Nope }}",
            "template: :1:10: executing \"\" at <.Config.Nope>: map has no entry for key \"Nope\"",
        ),
        (
            "{{.Nope}}",
            "template: :1:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\"",
        ),
        (
            "{{.Nope.x}}",
            "template: :1:7: executing \"\" at <.Nope.x>: map has no entry for key \"Nope\"",
        ),
        (
            "{{with .Config}}{{.Nope}}{{end}}",
            "template: :1:18: executing \"\" at <.Nope>: map has no entry for key \"Nope\"",
        ),
        (
            "{{.Id.X}}",
            "template: :1:5: executing \"\" at <.Id.X>: can't evaluate field X in type interface {}",
        ),
        (
            "{{index .Config.Cmd 3}}",
            "template: :1:2: executing \"\" at <index .Config.Cmd 3>: error calling index: index out \
             of range: 3",
        ),
        (
            "{{.Id | upper | join}}",
            "template: :1:16: executing \"\" at <join>: wrong number of args for join: want 2 got 1",
        ),
    ] {
        assert_eq!(rendered(template), expected, "{template}");
    }
}

#[test]
fn a_row_has_dockers_type_and_labels_and_its_json_may_stand_in_html() {
    let label = |name: &str| if name == "stage" { "test".to_owned() } else { String::new() };
    let row = row([("ID", "1".to_owned()), ("Tag", "<none>".to_owned())], Some(label));
    let render = |template: &str| {
        let template = Template::parse(template, Functions::Row("formatter.imageContext")).unwrap();
        template.render(&row).unwrap_or_else(|text| text)
    };
    assert_eq!(render("{{json .}}"), r#"{"ID":"1","Tag":"\u003cnone\u003e"}"#);
    for (template, expected) in [
        ("{{.Label \"stage\"}}|{{.Label \"none\"}}", "test|"),
        ("ü\n{{if .Label \"stage\"}}{{ .Label \"stage\" | upper }}{{end}}", "ü\nTEST"),
        ("{{len (.Label \"stage\")}}", "4"),
        (
            "{{.Label}}",
            "template: :1:2: executing \"\" at <.Label>: wrong number of args for Label: want 1 got 0",
        ),
    ] {
        assert_eq!(render(template), expected, "{template}");
    }
    assert_eq!(
        render("{{.Foo}}"),
        "template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type \
         *formatter.imageContext"
    );
}
