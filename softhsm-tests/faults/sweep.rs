//! Every code × {login, find, sign-init, sign, generate, create-object}, without effect and with it.

use super::{
    answers::{Answer, answers, some_answers},
    combination::{Fault, Place, Point, Tally},
};

/// Codes on one token: each generation leaves a key there, and SoftHSM2 gets slow.
const CODES_A_TOKEN: usize = 26;

fn sweep(point: Point, codes: &[(&'static str, Answer)]) {
    let mut all = Tally::default();
    for codes in codes.chunks(CODES_A_TOKEN) {
        let mut place = Place::new(point);
        for (code, answer) in codes {
            for has_effect in [false, true] {
                place.suffer(Fault { point, code, answer: *answer, has_effect });
            }
        }
        all = all.with(&place.conclude());
    }
    println!("{point:?}: {all:?}");
    assert_eq!(all.faults, codes.len() * 2);
}

/// Some codes in every run, and all of them in the long one.
macro_rules! swept {
    ($($name:ident, $long:ident: $point:ident;)*) => {$(
        #[test]
        fn $name() {
            sweep(Point::$point, &some_answers());
        }

        #[test]
        #[ignore = "long: run by make test-long"]
        fn $long() {
            sweep(Point::$point, &answers());
        }
    )*};
}

swept! {
    a_login_that_fails, a_login_that_fails_in_every_way: Login;
    a_search_that_fails, a_search_that_fails_in_every_way: Find;
    a_signature_that_fails_to_begin, a_signature_that_fails_to_begin_in_every_way: SignInit;
    a_signature_that_fails, a_signature_that_fails_in_every_way: Sign;
    a_generation_that_fails, a_generation_that_fails_in_every_way: Generate;
    a_creation_that_fails, a_creation_that_fails_in_every_way: Create;
}
