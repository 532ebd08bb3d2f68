-- The incarnation, once more: after WAIT.
--
-- KEYS 1 index of brought nonces
return incarnation(KEYS[1])
