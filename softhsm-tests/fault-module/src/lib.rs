//! A PKCS#11 module that stands before a real one and fails as it is told to.
//!
//! | environment     |                                                                             |
//! |-----------------|-----------------------------------------------------------------------------|
//! | `FAULT_MODULE`  | the real module; default SoftHSM2                                           |
//! | `FAULT_RULES`   | rules, separated by `;`                                                     |
//! | `FAULT_CONTROL` | a file of rules, one a line, that is read again whenever it changes         |
//! | `FAULT_COUNTS`  | a file in which the calls of each function are counted, over all processes  |
//!
//! A rule is `FUNCTION WORD…`. `*` is every function; `C_Sign:length` is C_Sign without a buffer, which
//! only asks for a length, and is not counted as C_Sign. What is done:
//!
//! | word                 |                                                                        |
//! |----------------------|------------------------------------------------------------------------|
//! | `fail=CKR_…`         | the code is returned, and the real call is not made                    |
//! | `fail-after=CKR_…`   | the real call is made, and then the code is returned                   |
//! | `delay=5ms`          | the call takes so much longer                                          |
//! | `takes=5ms`          | the call takes so long in all, the real one included                   |
//! | `at-once=4`          | no more than so many of these calls run at once: others wait           |
//! | `sessions=4`         | on C_OpenSession: CKR_SESSION_COUNT when so many are open              |
//! | `hang`               | the call does not end before the rule is taken out of the control file |
//! | `crash`              | the process aborts; with `crash=SEGV` it writes where no memory is     |
//! | `crash-after`        | the same once the real call was made, before anybody hears of it       |
//! | `close-sessions`     | every session is closed first, which also logs out                     |
//! | `eat=16`             | so many MiB are lost for good; CKR_HOST_MEMORY when there are none     |
//! | `write=PATH`         | a file is written to that is none of its business                      |
//! | `signal=PID`         | a process is told to end that is none of its business                  |
//! | `flip`               | on C_Sign: one bit of the signature is wrong                           |
//!
//! and when, counted from 1 since the rule came into force (all that are named must hold):
//! `at=7` the seventh call; `from=7` the seventh and later; `every=100` each hundredth; `times=3` the
//! first three that fit the others; `chance=0.01` one in a hundred, evenly but without a pattern.
//!
//! A token with 5 ms a signature and four at once: `C_Sign takes=5ms at-once=4`. One that makes ten
//! signatures a second: `C_Sign takes=100ms at-once=1`.
//!
//! A rule that cannot be read ends the process: a test that asks for nonsense has failed.

mod codes;
mod counts;
mod faults;
mod functions;
mod real;
mod rules;

use std::{ptr, sync::OnceLock};

use cryptoki_sys::{
    CK_FLAGS, CK_FUNCTION_LIST, CK_FUNCTION_LIST_3_0, CK_INTERFACE, CK_RV, CK_ULONG, CK_UTF8CHAR, CK_VERSION,
    CKR_ARGUMENTS_BAD, CKR_BUFFER_TOO_SMALL, CKR_FUNCTION_FAILED, CKR_OK,
};

pub use codes::{CODES, code};
pub use counts::Counts;
pub use functions::NAMES as FUNCTIONS;

/// What is handed out: it must stay where it is for as long as the module is loaded.
struct Lists {
    two: CK_FUNCTION_LIST,
    three: CK_FUNCTION_LIST_3_0,
    /// The newest interface that the real module has.
    interface: CK_INTERFACE,
}

// SAFETY: written once, and the pointers are to parts of itself and to a constant.
unsafe impl Send for Lists {}
// SAFETY: as above.
unsafe impl Sync for Lists {}

fn lists() -> *mut Lists {
    static LISTS: OnceLock<usize> = OnceLock::new();
    let made = LISTS.get_or_init(|| {
        let mut three = functions::shims();
        three.version = CK_VERSION { major: 3, minor: 0 };
        three.C_GetFunctionList = Some(C_GetFunctionList);
        three.C_GetInterfaceList = Some(C_GetInterfaceList);
        three.C_GetInterface = Some(C_GetInterface);
        let mut two = functions::first_part(&three);
        two.version = CK_VERSION { major: 2, minor: 40 };
        two.C_GetFunctionList = Some(C_GetFunctionList);
        let name = c"PKCS 11".as_ptr().cast_mut().cast();
        let interface = CK_INTERFACE { pInterfaceName: name, pFunctionList: ptr::null_mut(), flags: 0 };
        // Never freed: whoever loaded the module may keep the pointers until the process ends.
        let made = Box::leak(Box::new(Lists { two, three, interface }));
        made.interface.pFunctionList =
            if real::real().is_three { (&raw mut made.three).cast() } else { (&raw mut made.two).cast() };
        &raw mut *made as usize
    });
    *made as *mut Lists
}

/// # Safety
/// As the standard says: `list` is where a pointer may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    if list.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    // SAFETY: the caller's pointer, and ours, which is never freed.
    unsafe { *list = &raw mut (*lists()).two };
    CKR_OK
}

/// # Safety
/// As the standard says: `interfaces` has room for `count` of them, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetInterfaceList(interfaces: *mut CK_INTERFACE, count: *mut CK_ULONG) -> CK_RV {
    if count.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    // SAFETY: the caller's pointers, and ours, which is never freed.
    unsafe {
        let room = *count;
        *count = 1;
        if interfaces.is_null() {
            return CKR_OK;
        }
        if room < 1 {
            return CKR_BUFFER_TOO_SMALL;
        }
        *interfaces = (*lists()).interface;
    }
    CKR_OK
}

/// The newest interface, or the one of the version that is asked for.
///
/// # Safety
/// As the standard says: each pointer is null or good.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetInterface(
    _name: *mut CK_UTF8CHAR,
    version: *mut CK_VERSION,
    interface: *mut *mut CK_INTERFACE,
    _flags: CK_FLAGS,
) -> CK_RV {
    if interface.is_null() {
        return CKR_ARGUMENTS_BAD;
    }
    // SAFETY: the caller's pointers, and ours, which is never freed.
    unsafe {
        let offered: *const CK_VERSION = (*lists()).interface.pFunctionList.cast();
        if !version.is_null() && ((*version).major, (*version).minor) != ((*offered).major, (*offered).minor) {
            return CKR_FUNCTION_FAILED;
        }
        *interface = &raw mut (*lists()).interface;
    }
    CKR_OK
}
