//! The module that the calls are meant for.

use std::{env, ptr, sync::OnceLock};

use cryptoki_sys::{CK_FUNCTION_LIST, CK_FUNCTION_LIST_3_0, CK_INTERFACE, CKR_OK, Pkcs11};

use crate::functions;

/// Used when the environment names none.
const DEFAULT: &str = "/usr/lib/softhsm/libsofthsm2.so";

pub struct Real {
    pub functions: CK_FUNCTION_LIST_3_0,
    /// It has the functions of v3.0 as well.
    pub is_three: bool,
    _library: Pkcs11,
}

/// Loaded by the first call, and never let go.
pub fn real() -> &'static Real {
    static REAL: OnceLock<Real> = OnceLock::new();
    REAL.get_or_init(|| {
        let path = env::var_os("FAULT_MODULE").unwrap_or_else(|| DEFAULT.into());
        load(&path).unwrap_or_else(|error| crate::faults::give_up(&format!("{}: {error}", path.display())))
    })
}

fn load(path: &std::ffi::OsStr) -> Result<Real, String> {
    // SAFETY: loading it runs its code: whoever names it here wants that.
    let library = unsafe { Pkcs11::new(path) }.map_err(|error| error.to_string())?;
    let newest = newest(&library);
    let (functions, is_three) = match newest {
        Some(functions) => (functions, true),
        None => (functions::extended(&oldest(&library)?), false),
    };
    Ok(Real { functions, is_three, _library: library })
}

/// The interface of v3.x, where the module has one. A list of v3.2 begins as one of v3.0 does.
fn newest(library: &Pkcs11) -> Option<CK_FUNCTION_LIST_3_0> {
    library.C_GetInterface.as_ref().ok()?;
    let mut interface: *mut CK_INTERFACE = ptr::null_mut();
    // SAFETY: as the standard says; the pointers are good when it says CKR_OK.
    unsafe {
        if library.C_GetInterface(ptr::null_mut(), ptr::null_mut(), &raw mut interface, 0) != CKR_OK {
            return None;
        }
        let list: *const CK_FUNCTION_LIST_3_0 = (*interface).pFunctionList.cast();
        ((*list).version.major >= 3).then(|| *list)
    }
}

fn oldest(library: &Pkcs11) -> Result<CK_FUNCTION_LIST, String> {
    if library.C_GetFunctionList.is_err() {
        return Err("no PKCS#11 module".into());
    }
    let mut list: *mut CK_FUNCTION_LIST = ptr::null_mut();
    // SAFETY: as the standard says; the pointer is good when it says CKR_OK.
    match unsafe { library.C_GetFunctionList(&raw mut list) } {
        CKR_OK => Ok(unsafe { *list }),
        code => Err(format!("C_GetFunctionList: {code:#x}")),
    }
}
