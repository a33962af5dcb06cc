//! What is asked wrongly is refused with a word of what to do.

use crate::common::{Session, Who};

#[test]
fn an_image_that_is_not_there_is_named() {
    let session = Session::new(Who::User);
    let said = session.refused(&["inspect", "nothing:here"]);
    assert!(said.contains("nothing:here"), "{said}");
}
