//! SIGKILL at any moment of every operation leaves the old state or the new one, and nothing that
//! could be used by mistake.
//!
//! Each operation is cut short twice: with the module in the appliance, and with the module in a process of
//! its own, where by turns the one and the other is killed. Each round works on a copy of a token. Half of the moments are random delays, half are the
//! boundaries of system calls that change files. SoftHSM2 itself may lose the whole token when it
//! is killed inside C_Login; those rounds are counted apart.

mod moment;
mod operation;
mod sweep;

use operation::Operation;
use sweep::{Module, sweep};

/// A few kills in every run, and many in the long one.
macro_rules! swept {
    ($($name:ident, $long:ident: $operation:ident;)*) => {
        mod here {
            use super::*;
            $(
                #[test]
                fn $name() {
                    sweep(Operation::$operation, Module::Here, 4);
                }

                #[test]
                #[ignore = "long: run by make test-long"]
                fn $long() {
                    sweep(Operation::$operation, Module::Here, 45);
                }
            )*
        }

        mod in_a_process_of_its_own {
            use super::*;
            $(
                #[test]
                fn $name() {
                    sweep(Operation::$operation, Module::InAProcessOfItsOwn, 4);
                }

                #[test]
                #[ignore = "long: run by make test-long"]
                fn $long() {
                    sweep(Operation::$operation, Module::InAProcessOfItsOwn, 45);
                }
            )*
        }
    };
}

swept! {
    a_rotation_cut_short, a_rotation_cut_short_many_times: Rotate;
    a_completion_cut_short, a_completion_cut_short_many_times: Complete;
    a_revocation_cut_short, a_revocation_cut_short_many_times: Revoke;
    an_emergency_cut_short, an_emergency_cut_short_many_times: Emergency;
    a_destruction_cut_short, a_destruction_cut_short_many_times: Destroy;
    a_generation_cut_short, a_generation_cut_short_many_times: Generate;
    a_first_start_cut_short, a_first_start_cut_short_many_times: FirstStart;
    an_init_cut_short, an_init_cut_short_many_times: Init;
}
